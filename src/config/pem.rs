//! Certificates, keys and revocation lists from PEM files, with problems an operator understands.

use super::problem::Problem;
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use std::path::Path;

/// Every certificate of `file`, at least one.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    sections(file, "-----BEGIN CERTIFICATE-----")
}

/// Every revocation list of `file`, at least one.
pub fn revocation_lists(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, Problem> {
    sections(file, "-----BEGIN X509 CRL-----")
}

/// The private key of `file`: PKCS#8, PKCS#1 or SEC1, not encrypted.
pub fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Problem> {
    let text = read(file)?;
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => Ok(key),
        Err(Error::NoItemsFound) if contains(&text, b"-----BEGIN ENCRYPTED PRIVATE KEY-----") => {
            Err(Problem::of_file(file, "the private key is encrypted; expected one without a password"))
        }
        Err(Error::NoItemsFound) => {
            Err(Problem::of_file(file, "expected a private key in PEM (-----BEGIN PRIVATE KEY-----)"))
        }
        Err(error) => Err(Problem::of_file(file, format!("the PEM is damaged: {error}"))),
    }
}

fn sections<T: PemObject>(file: &Path, header: &str) -> Result<Vec<T>, Problem> {
    let text = read(file)?;
    let sections = T::pem_slice_iter(&text)
        .collect::<Result<Vec<T>, _>>()
        .map_err(|error| Problem::of_file(file, format!("the PEM is damaged: {error}")))?;
    match sections.is_empty() {
        true => Err(Problem::of_file(file, format!("expected at least one PEM section {header}"))),
        false => Ok(sections),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Problem> {
    std::fs::read(file).map_err(|error| Problem::of_file(file, format!("cannot be read: {error}")))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pem");
        std::fs::write(&path, content).unwrap();
        (dir, path)
    }

    #[test]
    fn every_certificate_of_a_file_is_read_in_order() {
        let pem = |bytes: &str| format!("-----BEGIN CERTIFICATE-----\n{bytes}\n-----END CERTIFICATE-----\n");
        let (_dir, path) = file(&format!("subject: x\n{}{}", pem("AQID"), pem("BAUG")));
        let read = certificates(&path).unwrap();
        assert_eq!(read.iter().map(|der| der.to_vec()).collect::<Vec<_>>(), [[1, 2, 3], [4, 5, 6]]);
    }

    #[test]
    fn files_without_what_is_expected_say_what_is_expected() {
        let (_dir, path) = file("nothing here\n");
        assert!(certificates(&path).unwrap_err().message.contains("BEGIN CERTIFICATE"));
        assert!(revocation_lists(&path).unwrap_err().message.contains("X509 CRL"));
        assert!(private_key(&path).unwrap_err().message.contains("BEGIN PRIVATE KEY"));
        let (_dir, path) =
            file("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAQID\n-----END ENCRYPTED PRIVATE KEY-----\n");
        assert!(private_key(&path).unwrap_err().message.contains("encrypted"));
        let (_dir, path) = file("-----BEGIN CERTIFICATE-----\nAQID\n");
        assert!(certificates(&path).unwrap_err().message.contains("damaged"));
        assert!(certificates(Path::new("/nonexistent")).unwrap_err().message.contains("cannot be read"));
    }
}
