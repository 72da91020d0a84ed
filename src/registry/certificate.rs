//! The key by which a client is found: issuer and serial number of its certificate.

use super::model::CertificateKey;
use super::name;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

/// RFC 5280, 4.1.2.2 allows serial numbers of at most 20 bytes.
const SERIAL_HEX_MAX: usize = 40;

impl CertificateKey {
    /// The key of a certificate in DER. The error says why it is not a certificate that can be used.
    pub fn of_der(certificate: &[u8]) -> Result<Self, String> {
        let (rest, certificate) = X509Certificate::from_der(certificate)
            .map_err(|error| format!("it is not an X.509 certificate: {error}"))?;
        if !rest.is_empty() {
            return Err("bytes follow the certificate".into());
        }
        let issuer = name::of_certificate(certificate.issuer())?;
        let hex: String = certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { issuer, serial: canonical_serial(&hex)? })
    }

    /// The issuer of a certificate or revocation list.
    pub fn issuer_of(name: &X509Name<'_>) -> Result<String, String> {
        name::of_certificate(name)
    }

    /// The issuer as an operator typed it, in the form of RFC 4514: what
    /// `openssl x509 -noout -issuer -nameopt RFC2253` prints.
    pub fn typed_issuer(text: &str) -> Result<String, String> {
        name::canonical(text)
    }

    /// The serial number as an operator typed it, in hexadecimal with or without colons: what
    /// `openssl x509 -noout -serial` prints.
    pub fn typed_serial(text: &str) -> Result<String, String> {
        canonical_serial(text)
    }
}

/// Lower case, no colons, no leading zeros.
fn canonical_serial(text: &str) -> Result<String, String> {
    let digits: String = text.trim().chars().filter(|&char| char != ':').collect();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!("`{text}` is not a serial number; expected hexadecimal digits such as 1f:a0:07"));
    }
    let digits = digits.trim_start_matches('0').to_ascii_lowercase();
    match digits.len() {
        0 => Ok("0".into()),
        1..=SERIAL_HEX_MAX => Ok(digits),
        length => {
            Err(format!("a serial number has at most {SERIAL_HEX_MAX} hexadecimal digits, not {length}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_compare_whatever_their_form() {
        for typed in ["0x", "", "12 34", "-1"] {
            assert!(canonical_serial(typed).is_err(), "{typed}");
        }
        for typed in ["1fa007", "00:1F:A0:07", "1F:a0:07", " 01FA007 "] {
            assert_eq!(canonical_serial(typed).as_deref(), Ok("1fa007"), "{typed}");
        }
        assert_eq!(canonical_serial("00").as_deref(), Ok("0"));
        assert!(canonical_serial(&"f".repeat(41)).is_err());
    }

    #[test]
    fn a_certificate_and_its_typed_form_have_the_same_key() {
        let mut params = rcgen::CertificateParams::default();
        params.serial_number = Some(vec![0, 0xAB, 0xCD].into());
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CountryName, "MD");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Întreprindere, \"X\" + Y");
        params.distinguished_name.push(rcgen::DnType::CommonName, " CA #1");
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let of_der = CertificateKey::of_der(certificate.der()).unwrap();
        let issuer = "CN=\\ CA #1, O=Întreprindere\\, \\\"X\\\" \\+ Y, C=MD";
        assert_eq!(CertificateKey::typed_issuer(issuer), Ok(of_der.issuer));
        assert_eq!(CertificateKey::typed_serial("AB:CD"), Ok(of_der.serial));
    }

    #[test]
    fn bytes_that_are_no_certificate_are_refused() {
        assert!(CertificateKey::of_der(b"hello").unwrap_err().contains("X.509"));
    }
}
