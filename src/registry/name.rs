//! Distinguished names as text (RFC 4514), so that a name in a certificate and a name an operator typed compare.

use x509_parser::asn1_rs::{Any, BmpString, FromDer, Tag};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// Attribute types with a keyword: those of RFC 4514, section 3, and what OpenSSL prints for the others in use.
/// The first keyword of a type is the one written.
const KEYWORDS: [(&str, &str); 22] = [
    ("CN", "2.5.4.3"),
    ("SN", "2.5.4.4"),
    ("serialNumber", "2.5.4.5"),
    ("C", "2.5.4.6"),
    ("L", "2.5.4.7"),
    ("ST", "2.5.4.8"),
    ("S", "2.5.4.8"),
    ("STREET", "2.5.4.9"),
    ("street", "2.5.4.9"),
    ("O", "2.5.4.10"),
    ("OU", "2.5.4.11"),
    ("title", "2.5.4.12"),
    ("description", "2.5.4.13"),
    ("businessCategory", "2.5.4.15"),
    ("postalCode", "2.5.4.17"),
    ("GN", "2.5.4.42"),
    ("dnQualifier", "2.5.4.46"),
    ("organizationIdentifier", "2.5.4.97"),
    ("DC", "0.9.2342.19200300.100.1.25"),
    ("UID", "0.9.2342.19200300.100.1.1"),
    ("emailAddress", "1.2.840.113549.1.9.1"),
    ("E", "1.2.840.113549.1.9.1"),
];

/// The name of a certificate's issuer or subject: most specific part first, no blanks around separators.
pub fn of_certificate(name: &X509Name<'_>) -> Result<String, String> {
    let parts: Result<Vec<_>, _> = name.iter_rdn().map(|part| part.iter().map(attribute).collect()).collect();
    let mut parts = parts?;
    parts.reverse();
    Ok(join(parts))
}

/// The same form of a name that a person typed: other blanks, escapes, keywords or their case, OIDs.
pub fn canonical(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("the name is empty".into());
    }
    let parts = split(text, ',')
        .into_iter()
        .map(|part| split(part, '+').into_iter().map(typed_attribute).collect::<Result<Vec<_>, _>>());
    Ok(join(parts.collect::<Result<_, _>>()?))
}

/// Attributes of one part have no order (X.501, 9.3), so they are sorted.
fn join(parts: Vec<Vec<String>>) -> String {
    let parts = parts.into_iter().map(|mut attributes| {
        attributes.sort_unstable();
        attributes.join("+")
    });
    parts.collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> Result<String, String> {
    let oid = attribute.attr_type().to_id_string();
    Ok(format!("{}={}", keyword(&oid), escaped(&value_text(attribute.attr_value())?)))
}

fn typed_attribute(text: &str) -> Result<String, String> {
    let (kind, value) =
        text.split_once('=').ok_or_else(|| format!("`{}` is not of the form TYPE=value", text.trim()))?;
    let kind = canonical_kind(kind.trim())?;
    let value = trimmed(value);
    let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    let value = match (value.strip_prefix('#'), quoted) {
        (Some(hex), _) => der_text(hex)?,
        (None, Some(quoted)) => unescaped(&quoted.replace("\"\"", "\""))?,
        (None, None) => unescaped(value)?,
    };
    Ok(format!("{kind}={}", escaped(&value)))
}

fn keyword(oid: &str) -> &str {
    KEYWORDS.iter().find(|(_, known)| *known == oid).map_or(oid, |(keyword, _)| keyword)
}

/// Keywords are compared without case, except that `SN` stands for a surname and `S` for a state.
fn canonical_kind(kind: &str) -> Result<&str, String> {
    let kind = kind
        .get(..4)
        .filter(|start| start.eq_ignore_ascii_case("OID."))
        .map_or(kind, |start| &kind[start.len()..]);
    let named = KEYWORDS.iter().find(|(keyword, _)| keyword.eq_ignore_ascii_case(kind));
    match named {
        Some((_, oid)) => Ok(keyword(oid)),
        None if kind.split('.').count() > 1 && kind.split('.').all(is_number) => Ok(keyword(kind)),
        None => Err(format!("`{kind}` is no known attribute type; write it as an OID such as 2.5.4.3")),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Text at every `separator` that no backslash escapes and that is not within quotation marks.
fn split(text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut is_escaped, mut is_quoted) = (0, false, false);
    for (at, char) in text.char_indices() {
        is_quoted ^= char == '"' && !is_escaped;
        if char == separator && !is_escaped && !is_quoted {
            parts.push(&text[start..at]);
            start = at + 1;
        }
        is_escaped = char == '\\' && !is_escaped;
    }
    parts.push(&text[start..]);
    parts
}

/// Without blanks around it, except one at the end that is escaped. Other white space belongs to the value.
fn trimmed(value: &str) -> &str {
    let value = value.trim_start_matches(' ');
    let end = value.trim_end_matches(' ');
    let backslashes = end.bytes().rev().take_while(|&byte| byte == b'\\').count();
    match backslashes % 2 {
        1 if end.len() < value.len() => &value[..end.len() + 1],
        _ => end,
    }
}

/// RFC 4514, section 2.4: `\` and a special character, or `\` and two hexadecimal digits of a UTF-8 byte.
fn unescaped(value: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
        } else if let Some(Ok(code)) = rest.get(..2).map(hex_byte) {
            bytes.push(code);
            rest = &rest[2..];
        } else {
            let (&special, after) = rest.split_first().ok_or("the name ends in a backslash")?;
            bytes.push(special);
            rest = after;
        }
    }
    String::from_utf8(bytes).map_err(|_| format!("`{value}` is not UTF-8 once its escapes are resolved"))
}

fn hex_byte(digits: &[u8]) -> Result<u8, ()> {
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(());
    }
    let digits = std::str::from_utf8(digits).map_err(|_| ())?;
    u8::from_str_radix(digits, 16).map_err(|_| ())
}

/// RFC 4514, section 2.4: `#` and the hexadecimal form of the value's DER encoding.
fn der_text(hex: &str) -> Result<String, String> {
    let wrong = || format!("`#{hex}` is not the hexadecimal form of a DER value");
    let bytes: Result<Vec<u8>, ()> = hex.as_bytes().chunks(2).map(hex_byte).collect();
    let bytes = bytes.ok().filter(|_| hex.len().is_multiple_of(2)).ok_or_else(wrong)?;
    let (_, value) = Any::from_der(&bytes).map_err(|_| wrong())?;
    value_text(&value)
}

fn value_text(value: &Any<'_>) -> Result<String, String> {
    let text = match value.tag() {
        Tag::BmpString => BmpString::try_from(value.clone()).ok().map(|text| text.string()),
        // Latin-1 in practice, whatever T.61 says.
        Tag::T61String => Some(value.data.iter().copied().map(char::from).collect()),
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::VisibleString => {
            std::str::from_utf8(value.data).ok().map(str::to_owned)
        }
        other => return Err(format!("a name has a value of the ASN.1 type {other:?}, which is not a text")),
    };
    text.ok_or_else(|| "a name has a value that is not valid text".into())
}

/// RFC 4514, section 2.4: what must be escaped, is; anything else stays.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (at, char) in value.chars().enumerate() {
        match char {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', char]),
            ' ' if at == 0 || at == last => text.push_str("\\ "),
            '#' if at == 0 => text.push_str("\\#"),
            '\0' => text.push_str("\\00"),
            _ => text.push(char),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_mean_the_same_become_the_same_text() {
        let canonical_form = "CN=nistru dev CA,O=Firma\\, SRL,C=MD";
        for typed in [
            "CN=nistru dev CA,O=Firma\\, SRL,C=MD",
            " cn = nistru dev CA , o=Firma\\2C SRL, c=MD ",
            "2.5.4.3=nistru dev CA,2.5.4.10=Firma\\, SRL,2.5.4.6=MD",
            "CN=\"nistru dev CA\", O=\"Firma, SRL\", OID.2.5.4.6=MD",
        ] {
            assert_eq!(canonical(typed).as_deref(), Ok(canonical_form), "{typed}");
        }
    }

    #[test]
    fn a_value_given_as_der_is_read_as_text() {
        assert!(canonical("2.5.4.3=#0C0241C8").unwrap_err().contains("not valid text"));
        assert_eq!(canonical("2.5.4.3=#0C03414243,C=MD").as_deref(), Ok("CN=ABC,C=MD"));
    }

    #[test]
    fn attributes_of_one_part_are_compared_without_order() {
        assert_eq!(canonical("UID=7+CN=a, C=MD"), canonical("CN=a + UID=7,C=MD"));
    }

    #[test]
    fn blanks_at_the_ends_of_a_value_count_only_when_escaped() {
        assert_eq!(canonical("CN=  a  ").as_deref(), Ok("CN=a"));
        assert_eq!(canonical("CN=\\ a\\  ").as_deref(), Ok("CN=\\ a\\ "));
        assert_eq!(canonical("CN=\\#1").as_deref(), Ok("CN=\\#1"));
        assert_eq!(canonical("CN=\u{2000}").as_deref(), Ok("CN=\u{2000}"));
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_part_that_is_wrong() {
        assert!(canonical("").unwrap_err().contains("empty"));
        assert!(canonical("CN=a,MD").unwrap_err().contains("`MD`"));
        assert!(canonical("XX=a").unwrap_err().contains("`XX`"));
        assert!(canonical("CN=a\\").unwrap_err().contains("backslash"));
        assert!(canonical("CN=#0C").unwrap_err().contains("#0C"));
        assert!(canonical("CN=\\C8\\C8").unwrap_err().contains("UTF-8"));
    }

    proptest::proptest! {
        #[test]
        fn any_value_survives_escaping(value in "\\PC*") {
            let text = format!("CN={}", escaped(&value));
            proptest::prop_assert_eq!(canonical(&text), Ok(text));
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".*") {
            let _ = canonical(&text);
        }
    }
}
