//! Little-endian fields at fixed places.
//!
//! Callers check the length of a header once, then name places inside it; a place outside is a bug and panics.

/// Reads `N` bytes at `at`.
pub(crate) fn bytes<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    from[at..at + N].try_into().expect("a slice of N bytes")
}

/// Reads two bytes at `at`.
pub(crate) fn u16_at(from: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes(from, at))
}

/// Reads four bytes at `at`.
pub(crate) fn u32_at(from: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(from, at))
}

/// Reads eight bytes at `at`.
pub(crate) fn u64_at(from: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes(from, at))
}

/// Writes `value` at `at`.
pub(crate) fn put(into: &mut [u8], at: usize, value: &[u8]) {
    into[at..at + value.len()].copy_from_slice(value);
}

/// Whether every byte of `from` is zero.
pub(crate) fn is_zero(from: &[u8]) -> bool {
    from.iter().all(|byte| *byte == 0)
}
