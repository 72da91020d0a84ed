//! A stored event taken apart for binary mode: attributes as header values, the payload as such (CloudEvents HTTP binding
//! 1.0.2, 3.1). The way back of what [`crate::ingress`] does with raw requests.

use super::media_type::MediaType;
use super::string;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;

/// An event in binary mode.
#[derive(Debug, PartialEq, Eq)]
pub struct Binary<'e> {
    /// The `datacontenttype`, for the header `Content-Type`. Missing only when there is no payload, and then not always.
    pub content_type: Option<Cow<'e, [u8]>>,
    /// Every other attribute in the order of the event: its name, to which `ce-` is to be added, and its header value.
    pub attributes: Vec<(&'e str, Cow<'e, [u8]>)>,
    /// The payload: JSON byte for byte as produced, text and bytes as such.
    pub payload: Cow<'e, [u8]>,
}

impl<'e> Binary<'e> {
    /// Takes apart an event as [`super::encode`] writes it: without its closing brace, payload last. `None` for anything
    /// else.
    pub fn read(event: &'e [u8]) -> Option<Self> {
        let mut read = Self { content_type: None, attributes: Vec::new(), payload: Cow::Borrowed(&[]) };
        let mut rest = event.strip_prefix(b"{")?;
        while !rest.is_empty() {
            let (name, after) = quoted(rest)?;
            rest = after.strip_prefix(b":")?;
            match name {
                b"data" => {
                    read.payload = read.text_or_json(rest)?;
                    break;
                }
                b"data_base64" => {
                    read.payload = Cow::Owned(STANDARD.decode(string::unescaped_bytes(whole(rest)?)).ok()?);
                    break;
                }
                _ => rest = read.attribute(std::str::from_utf8(name).ok()?, rest)?,
            }
        }
        Some(read)
    }

    /// Takes the attribute `name`, whose value `rest` begins with; gives what follows the comma behind it.
    fn attribute(&mut self, name: &'e str, rest: &'e [u8]) -> Option<&'e [u8]> {
        let (value, rest) = match rest.first()? {
            b'"' => {
                let (inside, rest) = quoted(rest)?;
                (string::unescaped_bytes(inside), rest)
            }
            _ => {
                let end = rest.iter().position(|&byte| byte == b',').unwrap_or(rest.len());
                (Cow::Borrowed(&rest[..end]), &rest[end..])
            }
        };
        match name {
            "datacontenttype" => self.content_type = Some(value),
            _ => self.attributes.push((name, percent_encode(value))),
        }
        match rest {
            [] => Some(rest),
            _ => rest.strip_prefix(b","),
        }
    }

    /// The payload whose JSON form is `data`: content that is not JSON is a string that holds it (JSON format 1.0.2, 3.1).
    fn text_or_json(&self, data: &'e [u8]) -> Option<Cow<'e, [u8]>> {
        let is_json = match self.content_type.as_deref() {
            None | Some(b"application/json") => true,
            Some(other) => MediaType::read(std::str::from_utf8(other).ok()?).is_some_and(MediaType::is_json),
        };
        match is_json {
            true => Some(Cow::Borrowed(data)),
            false => whole(data).map(string::unescaped_bytes),
        }
    }
}

/// Splits a JSON string off the start of `text`: its inside, and what follows it.
fn quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let inside = text.strip_prefix(b"\"")?;
    let mut end = 0;
    loop {
        end += string::plain_prefix(&inside[end..]);
        match inside.get(end)? {
            b'"' => return Some((&inside[..end], &inside[end + 1..])),
            b'\\' => end += string::escape(&inside[end..])?.1,
            _ => return None,
        }
    }
}

/// The inside of the JSON string that is all of `text`.
fn whole(text: &[u8]) -> Option<&[u8]> {
    quoted(text).filter(|(_, rest)| rest.is_empty()).map(|(inside, _)| inside)
}

/// The value of a header that says `text`, as the binding has it in 3.1.3.2: space, `"`, `%` and everything outside
/// printable ASCII is percent-encoded, byte by byte of its UTF-8.
pub fn percent_encode(text: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let plain = |byte: u8| matches!(byte, b'!'..=b'~') && byte != b'"' && byte != b'%';
    let Some(first) = text.iter().position(|&byte| !plain(byte)) else { return text };
    let mut encoded = Vec::with_capacity(text.len() + 16);
    encoded.extend_from_slice(&text[..first]);
    for &byte in &text[first..] {
        match plain(byte) {
            true => encoded.push(byte),
            false => encoded.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
    Cow::Owned(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = r#"{"specversion":"1.0","source":"urn:a","id":"1","type":"A.B.C.D""#;

    fn payload(rest: &str) -> Option<Vec<u8>> {
        let event = format!("{START}{rest}");
        Some(Binary::read(event.as_bytes())?.payload.into_owned())
    }

    #[test]
    fn attributes_become_header_values_in_their_order() {
        let rest = r#","datacontenttype":"text/plain; charset=\"utf-8\"","subject":"a \"b\" 100% ș😀\\","n":-5,"yes":true,"no":false,"x":"","data":"t""#;
        let event = format!("{START}{rest}");
        let read = Binary::read(event.as_bytes()).unwrap();
        assert_eq!(read.content_type.as_deref(), Some(&b"text/plain; charset=\"utf-8\""[..]));
        let attributes: Vec<_> = read
            .attributes
            .iter()
            .map(|(name, value)| (*name, std::str::from_utf8(value).unwrap()))
            .collect();
        assert_eq!(
            attributes,
            [
                ("specversion", "1.0"),
                ("source", "urn:a"),
                ("id", "1"),
                ("type", "A.B.C.D"),
                ("subject", r"a%20%22b%22%20100%25%20%C8%99%F0%9F%98%80\"),
                ("n", "-5"),
                ("yes", "true"),
                ("no", "false"),
                ("x", ""),
            ]
        );
    }

    #[test]
    fn the_payload_is_what_was_produced() {
        for (rest, expected) in [
            ("", &b""[..]),
            (r#","n":1"#, b""),
            (r#","datacontenttype":"application/json","data": {"a" : "\u0041"}"#, br#" {"a" : "\u0041"}"#),
            (r#","datacontenttype":"Application/Vnd.X+JSON; v=1","data":"a\n""#, br#""a\n""#),
            (r#","data":"a""#, br#""a""#),
            (
                r#","datacontenttype":"text/plain","data":"a\n\"b\"\u00e9\ud83d\ude00""#,
                "a\n\"b\"é😀".as_bytes(),
            ),
            (r#","datacontenttype":"application/xml","data":"<a\/>""#, b"<a/>"),
            (r#","datacontenttype":"application/json","data_base64":"AP8=""#, b"\0\xff"),
            (r#","datacontenttype":"application/octet-stream","data_base64":"""#, b""),
        ] {
            assert_eq!(payload(rest).as_deref(), Some(expected), "{rest}");
        }
    }

    #[test]
    fn the_example_of_the_binding_is_encoded_as_it_says() {
        let text = "Euro \u{20ac} \u{1f600}".as_bytes();
        assert_eq!(&*percent_encode(text.into()), b"Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert!(matches!(percent_encode(b"plain:/?#~!".into()), Cow::Borrowed(_)));
        assert_eq!(&*percent_encode(b"\0\x1f \"%\x7f\xc2\x80".into()), b"%00%1F%20%22%25%7F%C2%80");
    }

    #[test]
    fn what_is_no_stored_event_is_noticed() {
        for rest in [
            "}",
            r#","x""#,
            r#","x":"#,
            r#","x":"open"#,
            r#","x":"a"b"#,
            r#","x":"\q""#,
            r#","data_base64":"A""#,
            r#","data_base64":1"#,
            r#","datacontenttype":"text/plain","data":1"#,
            r#","datacontenttype":"text/plain","data":"a" "#,
        ] {
            assert_eq!(payload(rest), None, "{rest}");
        }
        assert_eq!(Binary::read(b""), None);
        assert_eq!(Binary::read(b"[]"), None);
    }
}
