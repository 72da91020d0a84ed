//! What a produce request consists of, independent of the HTTP version that carried it.

/// How a request carries its events (CloudEvents HTTP binding 1.0.2, section 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Binary mode: the body is the payload, the attributes are headers.
    Raw,
    /// Structured mode: the body is one event.
    Event,
    /// Batched mode: the body is an array of events.
    Batch,
}

/// A produce request whose body is complete.
#[derive(Clone, Copy, Debug)]
pub struct Produced<'a> {
    pub form: Form,
    /// The `Content-Type` header, without surrounding whitespace. Several of them are the interface's to refuse.
    pub content_type: Option<&'a [u8]>,
    /// Every `ce-` header, repeated ones repeatedly: its name without the prefix, in any case, and its value without
    /// surrounding whitespace. Only [`Form::Raw`] looks at them.
    pub attributes: &'a [(&'a str, &'a [u8])],
    /// The body; less than 4 GiB.
    pub body: &'a [u8],
}

impl Form {
    /// The content type of a request in this form, as error texts name it.
    pub(super) fn expected_content_type(self) -> &'static str {
        match self {
            Form::Raw => "application/json, text/plain or application/octet-stream",
            Form::Event => "application/cloudevents+json",
            Form::Batch => "application/cloudevents-batch+json",
        }
    }
}
