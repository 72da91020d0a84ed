//! How the broker reaches a service of others: the settings that every section for one shares.

use super::document::{Document, Located, Section};
use fluent_uri::Uri;
use std::path::{Path, PathBuf};
use std::time::Duration;

const TIMEOUT_MIN: Duration = Duration::from_millis(100);
const TIMEOUT_MAX: Duration = Duration::from_secs(300);
const TIMEOUT: Duration = Duration::from_secs(10);

/// A service reached over HTTPS with a client certificate.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// `https://host[:port][/path]`, without a trailing slash.
    pub url: String,
    /// PEM file: the broker's certificate as a client, then its intermediates.
    pub certificate: PathBuf,
    /// PEM file: the private key of the certificate.
    pub key: PathBuf,
    /// PEM files of the authorities that issue the service's certificate, never empty.
    pub ca: Vec<PathBuf>,
    /// From the start of a request, the connection included, to the last byte of its answer.
    pub timeout: Duration,
}

impl Service {
    /// Reads `url`, `certificate`, `key`, `ca` and `timeout` of `section` and leaves its other keys to the caller.
    pub fn read(document: &Document<'_>, section: &mut Section<'_, '_>, base: &Path) -> Option<Self> {
        let url = section.required("url").map(|url| service_url(document, url));
        let certificate: Option<PathBuf> = section.required("certificate");
        let key: Option<PathBuf> = section.required("key");
        let ca: Option<Vec<PathBuf>> = section.required_list("ca");
        let timeout = section.within("timeout", TIMEOUT_MIN..=TIMEOUT_MAX, TIMEOUT);
        Some(Self {
            url: url?,
            certificate: base.join(certificate?),
            key: base.join(key?),
            ca: ca?.into_iter().map(|file| base.join(file)).collect(),
            timeout,
        })
    }
}

impl Service {
    /// Every file that is read.
    pub fn files(&self) -> Vec<PathBuf> {
        [&self.certificate, &self.key].into_iter().chain(&self.ca).cloned().collect()
    }
}

fn service_url(document: &Document<'_>, url: Located<String>) -> String {
    let text = url.value.trim_end_matches('/');
    let is_base = Uri::parse(text).is_ok_and(|uri| {
        uri.scheme().as_str() == "https"
            && uri.authority().is_some_and(|at| !at.host().is_empty() && at.userinfo().is_none())
            && uri.query().is_none()
            && uri.fragment().is_none()
    });
    if !is_base {
        document.report(url.at, "expected an address such as https://host/path, without a query");
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Service, Vec<String>> {
        let read = |document: &Document<'_>, mut top: Section<'_, '_>| {
            let service = Service::read(document, &mut top, Path::new("/etc/nistru"));
            top.finish();
            service
        };
        Document::read(Path::new("f"), text, read)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_service_needs_an_address_and_files_and_has_a_timeout() {
        let text = "url = \"https://mpass.example/api/\"\ncertificate = \"c.pem\"\nkey = \"/k\"\nca = [\"ca.pem\"]\n";
        let service = read(text).unwrap();
        assert_eq!(service.url, "https://mpass.example/api");
        assert_eq!(service.certificate, Path::new("/etc/nistru/c.pem"));
        assert_eq!(service.key, Path::new("/k"));
        assert_eq!(service.timeout, TIMEOUT);
        assert_eq!(read(&format!("{text}timeout = \"2s\"\n")).unwrap().timeout, Duration::from_secs(2));
    }

    #[test]
    fn every_mistake_is_reported() {
        let found = read("url = \"http://mpass\"\nca = []\ntimeout = \"0s\"\n").unwrap_err();
        for part in
            ["https://host/path", "`certificate` is missing", "`key` is missing", "`ca` is empty", "100ms"]
        {
            assert!(found.iter().any(|problem| problem.contains(part)), "{part}: {found:?}");
        }
        for url in ["https://a:b@host/", "https://host/?a=b", "https://", "host"] {
            let found = read(&format!("url = \"{url}\"\n")).unwrap_err();
            assert!(found.iter().any(|problem| problem.contains("https://host/path")), "{url}: {found:?}");
        }
    }
}
