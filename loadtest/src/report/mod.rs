//! What a run has found out: the data, and how it is shown, compared and judged.

mod chart;
mod compare;
mod figure;
mod flow;
mod html;
mod machine;
mod model;
mod plot;
#[cfg(test)]
mod sample;
mod targets;
mod text;

pub use compare::Comparison;
pub use flow::{Flow, Latency};
pub use html::{comparison_page, page};
pub use machine::Machine;
pub use model::{Broker, Client, FORMAT, Group, Report, Scenario, Server, Stalls};
pub use targets::Targets;
