//! Header fields in one block of bytes: two allocations however many fields there are.

use std::ops::Range;

/// The fields of a request or a response, in the order in which they came.
///
/// Names are kept as they were written and compared without regard to ASCII case (RFC 9110, 5.1). Values have no white
/// space at their ends and may hold any byte but control characters.
#[derive(Clone, Default)]
pub struct Headers {
    bytes: Vec<u8>,
    fields: Vec<Field>,
}

/// Where one field lies in `bytes`. A head is far smaller than 4 GiB.
#[derive(Clone, Copy)]
pub(crate) struct Field {
    name: (u32, u32),
    value: (u32, u32),
}

/// A field that may stand once stands several times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Repeated;

impl Field {
    /// A field whose name and value are these ranges of the block.
    pub(crate) fn new(name: Range<usize>, value: Range<usize>) -> Self {
        let narrow = |range: Range<usize>| (range.start as u32, range.end as u32);
        Self { name: narrow(name), value: narrow(value) }
    }
}

impl Headers {
    /// No fields; allocates nothing.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), fields: Vec::new() }
    }

    /// Takes over a block of bytes in which the fields lie. Every range must be inside the block.
    pub(crate) fn from_block(bytes: Vec<u8>, fields: Vec<Field>) -> Self {
        Self { bytes, fields }
    }

    /// Adds a field after the others. Control characters in the value become `?`, so that no value can end its line
    /// and begin another.
    pub fn push(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let name = self.append(name.bytes());
        let value =
            self.append(value.as_ref().iter().map(|&byte| if is_field_byte(byte) { byte } else { b'?' }));
        self.fields.push(Field::new(name, value));
    }

    fn append(&mut self, bytes: impl Iterator<Item = u8>) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend(bytes);
        start..self.bytes.len()
    }

    /// The first value of `name`.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.get_all(name).next()
    }

    /// The first value of `name`, when it is UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// The value of a field that may stand once.
    pub fn get_once(&self, name: &str) -> Result<Option<&[u8]>, Repeated> {
        let mut values = self.get_all(name);
        let first = values.next();
        match values.next() {
            None => Ok(first),
            Some(_) => Err(Repeated),
        }
    }

    /// Every value of `name`, in order.
    pub fn get_all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let named = move |field: &&Field| self.slice(field.name).eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().filter(named).map(|field| self.slice(field.value))
    }

    /// Whether a comma-separated list field (RFC 9110, 5.6.1) holds `token`, in whichever of its lines and in any case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.tokens(name).any(|other| other.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// The elements of a comma-separated list field, over all its lines, without white space and empty elements.
    pub fn tokens<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.get_all(name)
            .flat_map(|line| line.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|element| !element.is_empty())
    }

    /// All fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|field| {
            let name = std::str::from_utf8(self.slice(field.name)).expect("names are ASCII tokens");
            (name, self.slice(field.value))
        })
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    fn slice(&self, (start, end): (u32, u32)) -> &[u8] {
        &self.bytes[start as usize..end as usize]
    }
}

/// Whether `byte` may stand in a field value: `HTAB`, space, visible and obs-text (RFC 9110, 5.5).
pub(crate) fn is_field_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(name, value)| (name, String::from_utf8_lossy(value))))
            .finish()
    }
}

/// Equal when the same fields stand in the same order, names in any case.
impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self.iter().zip(other.iter()).all(|(a, b)| a.0.eq_ignore_ascii_case(b.0) && a.1 == b.1)
    }
}

impl Eq for Headers {}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Headers {
        let mut headers = Headers::new();
        headers.push("Content-Type", "text/plain");
        headers.push("Connection", "keep-alive, Upgrade");
        headers.push("connection", " ,, close");
        headers
    }

    #[test]
    fn names_are_found_in_any_case() {
        assert_eq!(sample().get("content-TYPE"), Some(&b"text/plain"[..]));
        assert_eq!(sample().get("content-length"), None);
    }

    #[test]
    fn a_repeated_field_is_told_from_a_single_one() {
        assert_eq!(sample().get_once("connection"), Err(Repeated));
        assert_eq!(sample().get_once("content-type"), Ok(Some(&b"text/plain"[..])));
        assert_eq!(sample().get_once("host"), Ok(None));
    }

    #[test]
    fn list_elements_are_collected_over_all_lines() {
        let headers = sample();
        let tokens: Vec<_> = headers.tokens("Connection").collect();
        assert_eq!(tokens, [&b"keep-alive"[..], b"Upgrade", b"close"]);
        assert!(headers.has_token("connection", "UPGRADE") && !headers.has_token("connection", "keep"));
    }

    #[test]
    fn a_value_cannot_break_out_of_its_line() {
        let mut headers = Headers::new();
        headers.push("ce-id", "a\r\nSet-Cookie: b\0\tc");
        assert_eq!(headers.get("ce-id"), Some(&b"a??Set-Cookie: b?\tc"[..]));
        assert_eq!(headers.len(), 1);
    }
}
