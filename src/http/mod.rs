//! HTTP as the broker speaks it: messages that know no version, the HTTP/1.1 protocol that carries them, and what of them
//! differs in HTTP/2.
//!
//! ```text
//! bytes ──h1::Parser──▶ Request ──(api)──▶ Response ──h1::Exchange::encode──▶ bytes
//! head ──h2::Head::read──▶ Request ──(api)──▶ Response ──h2::encode──▶ head
//! ```
//!
//! Everything here is sans-IO: bytes and the time go in, values and bytes come out; no socket, no clock, no thread.
//! [`Request`], [`Response`] and [`Headers`] carry nothing of HTTP/1.1, so that another version of the protocol can use
//! them as they are. This module never knows a client, an event or a route.

pub mod accept;
pub mod date;
pub mod h1;
pub mod h2;
mod headers;
pub mod media;
mod problem;
pub mod query;
mod request;
mod response;

pub use headers::{Headers, Repeated};
pub use problem::{Problem, ProblemError};
pub use request::{Method, Request, Version};
pub use response::{Response, Status};
