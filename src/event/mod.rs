//! CloudEvents: reading JSON in place, attributes and their rules, the delivered form, and the record that is stored.
//!
//! [`json`] finds values without copying them, [`attributes`] collects and checks what an event says about itself,
//! [`payload`] is what it carries, [`encode`] writes both as consumers will see them, [`record`] is how that is kept.
//! Of what was kept, [`batch`] makes what consumers read as JSON, and [`binary`] attributes and payload on their own.

pub mod attributes;
pub mod batch;
pub mod binary;
pub mod encode;
pub mod json;
pub mod key;
pub mod media_type;
pub mod payload;
pub mod record;
pub mod string;
pub mod timestamp;
