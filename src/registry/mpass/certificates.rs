//! The `Certificates` of a client, in whichever of the usual forms they come.

use crate::registry::model::CertificateKey;
use base64::prelude::{BASE64_STANDARD, Engine};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value};

const SERIALS: [&str; 3] = ["SerialNumber", "CertificateSerialNumber", "Serial"];
const ISSUERS: [&str; 4] = ["Issuer", "IssuerName", "IssuerDN", "CertificateIssuer"];
const WHOLE: [&str; 5] = ["Certificate", "RawData", "Pem", "Data", "Value"];

/// The member of that name, whatever its case; `null` counts as missing.
pub fn member<'j>(object: &'j Map<String, Value>, name: &str) -> Option<&'j Value> {
    let exact = object.get(name);
    let any = || object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    exact.or_else(any).filter(|value| !value.is_null())
}

/// The key of each item of the list, and what is wrong with the items that have none.
///
/// An item is a certificate as text, PEM or DER in base64; or an object with such a text; or an object with the serial
/// number in hexadecimal and the issuer's distinguished name.
pub fn keys(list: &[Value]) -> (Vec<CertificateKey>, Vec<String>) {
    let (mut keys, mut problems) = (Vec::new(), Vec::new());
    for (number, item) in list.iter().enumerate() {
        match key(item) {
            Ok(key) if keys.contains(&key) => {}
            Ok(key) => keys.push(key),
            Err(reason) => problems.push(format!("Certificates at /{number}: {reason}")),
        }
    }
    (keys, problems)
}

fn key(item: &Value) -> Result<CertificateKey, String> {
    match item {
        Value::String(text) => of_text(text),
        Value::Object(object) => of_object(object),
        _ => Err("expected a certificate, or an object with its serial number and issuer".into()),
    }
}

fn of_object(object: &Map<String, Value>) -> Result<CertificateKey, String> {
    let text = |names: &[&str]| names.iter().find_map(|name| member(object, name)?.as_str());
    match (text(&SERIALS), text(&ISSUERS), text(&WHOLE)) {
        (Some(serial), Some(issuer), _) => Ok(CertificateKey {
            issuer: CertificateKey::typed_issuer(issuer)?,
            serial: CertificateKey::typed_serial(serial)?,
        }),
        (_, _, Some(certificate)) => of_text(certificate),
        _ => Err("expected `SerialNumber` and `Issuer`, or `Certificate`".into()),
    }
}

fn of_text(text: &str) -> Result<CertificateKey, String> {
    if text.contains("-----BEGIN") {
        let der = CertificateDer::from_pem_slice(text.as_bytes())
            .map_err(|error| format!("the PEM is damaged: {error}"))?;
        return CertificateKey::of_der(&der);
    }
    let packed: String = text.chars().filter(|char| !char.is_ascii_whitespace()).collect();
    let der = BASE64_STANDARD.decode(packed).map_err(|_| "expected PEM, or DER in base64".to_owned())?;
    CertificateKey::of_der(&der)
}

/// The serial number as the API is asked for it: the bytes of the certificate in upper-case hexadecimal, a leading zero byte
/// included where the number would be negative without, as .NET and Windows show it.
pub fn searched_serial(key: &CertificateKey) -> String {
    let digits = key.serial.to_ascii_uppercase();
    let even = if digits.len().is_multiple_of(2) { digits } else { format!("0{digits}") };
    let is_negative = even.as_bytes().first().is_some_and(|digit| !(b'0'..b'8').contains(digit));
    if is_negative { format!("00{even}") } else { even }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn certificates_in_every_form_have_the_same_key() {
        let mut params = rcgen::CertificateParams::default();
        params.serial_number = Some(vec![0x0A, 0xBC].into());
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Firma, SRL");
        params.distinguished_name.push(rcgen::DnType::CommonName, "CA");
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let base64 = BASE64_STANDARD.encode(certificate.der());
        let list = json!([
            {"SerialNumber": "0ABC", "Issuer": "CN=CA, O=\"Firma, SRL\""},
            {"serial": "0a:bc", "issuerDN": "CN=CA,O=Firma\\, SRL"},
            {"Certificate": certificate.pem()},
            {"rawData": base64, "Thumbprint": "x", "Issuer": null},
            certificate.pem(),
            format!("{}\r\n{}", &base64[..64], &base64[64..]),
        ]);
        let expected = CertificateKey { issuer: "CN=CA,O=Firma\\, SRL".into(), serial: "abc".into() };
        assert_eq!(keys(list.as_array().unwrap()), (vec![expected], vec![]));
    }

    #[test]
    fn items_without_a_key_are_told_and_spoil_no_other() {
        let good = json!({"SerialNumber": "1", "Issuer": "CN=a"});
        let list = json!([7, "hello!", "aGVsbG8=", {"SerialNumber": "1"}, {"SerialNumber": "x", "Issuer": "CN=a"},
            {"SerialNumber": "1", "Issuer": "nobody"}, "-----BEGIN CERTIFICATE-----\nx", good]);
        let (keys, problems) = keys(list.as_array().unwrap());
        assert_eq!((keys.len(), problems.len()), (1, 7), "{problems:#?}");
        assert!(problems[3].contains("/3: expected `SerialNumber` and `Issuer`"), "{problems:#?}");
    }

    #[test]
    fn the_serial_number_is_asked_for_with_all_its_bytes() {
        let asked =
            |serial: &str| searched_serial(&CertificateKey { issuer: String::new(), serial: serial.into() });
        assert_eq!(["0", "abc", "7f01", "80", "fa00"].map(asked), ["00", "0ABC", "7F01", "0080", "00FA00"]);
    }
}
