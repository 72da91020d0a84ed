//! The buffers through which all bytes of a core's sockets pass, so that an idle connection needs none of its own.

use std::cell::RefCell;

/// Size of each of the two buffers.
pub const BUFFER_BYTES: usize = 128 << 10;

/// Buffers that all connections of a core use in turn: one borrow never outlives one poll.
pub struct Buffers {
    pub receive: RefCell<Vec<u8>>,
    pub send: RefCell<Vec<u8>>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self { receive: vec![0; BUFFER_BYTES].into(), send: Vec::with_capacity(BUFFER_BYTES).into() }
    }
}
