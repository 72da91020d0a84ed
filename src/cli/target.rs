//! Which broker a client command speaks to, and as whom.

use crate::client::{Endpoint, Error, dev_files};
use clap::Args;
use std::path::{Path, PathBuf};

/// The broker's port when nothing says otherwise.
const DEFAULT_PORT: u16 = 8443;

/// Options that every client command has. By default they fit a broker started by `nistru dev`.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Broker")]
pub struct Target {
    /// The broker, https://HOST[:PORT] [default: localhost with the port in DIR/nistru.toml, else 8443]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// The client's certificate chain, a PEM file [default: DIR/pki/NAME.pem]
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// The certificate's private key, a PEM file [default: DIR/pki/NAME.key]
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// The authorities that may have issued the broker's certificate, a PEM file [default: DIR/pki/ca.pem]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// A directory made by `nistru dev`
    #[arg(long, value_name = "DIR", default_value = "./nistru-dev")]
    pub dir: PathBuf,
    /// Which client of DIR to be
    #[arg(long = "as", value_name = "NAME", default_value = "demo")]
    pub name: String,
}

impl Target {
    /// Reads the files.
    pub fn endpoint(&self) -> Result<Endpoint, Error> {
        let (ca, cert, key) = dev_files(&self.dir, &self.name);
        let ca = self.ca.as_ref().unwrap_or(&ca);
        let (cert, key) = (self.cert.as_ref().unwrap_or(&cert), self.key.as_ref().unwrap_or(&key));
        if let Some(missing) = [ca, cert, key].into_iter().find(|file| !file.exists()) {
            return Err(Error::Setup(format!(
                "{}: no such file; start `nistru dev`, or name a directory it made with --dir and a client in it with \
                 --as, or give --url, --ca, --cert and --key",
                missing.display()
            )));
        }
        Endpoint::new(&self.url()?, ca, Some((cert, key)))
    }

    fn url(&self) -> Result<String, Error> {
        match &self.url {
            Some(url) => Ok(url.clone()),
            None => match dev_port(&self.dir.join("nistru.toml"))? {
                0 => {
                    Err(Error::Setup("the broker takes a free port at each start; give its --url".to_owned()))
                }
                port => Ok(format!("https://localhost:{port}")),
            },
        }
    }
}

/// The port that a broker of this configuration listens on.
fn dev_port(config: &Path) -> Result<u16, Error> {
    let Ok(text) = std::fs::read_to_string(config) else { return Ok(DEFAULT_PORT) };
    let wrong = |error| Error::Setup(format!("{}: {error}; give the broker's --url", config.display()));
    let table: toml::Table = text.parse().map_err(wrong)?;
    let listen = table.get("server").and_then(|server| server.get("listen"));
    let first = listen.and_then(|list| list.get(0).or(Some(list))).and_then(toml::Value::as_str);
    Ok(first.and_then(|address| address.rsplit_once(':')?.1.parse().ok()).unwrap_or(DEFAULT_PORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_comes_from_the_first_listener() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("nistru.toml");
        let port_of = |text: &str| {
            std::fs::write(&file, text).unwrap();
            dev_port(&file)
        };
        assert_eq!(port_of("[server]\nlisten = [\"[::]:9001\", \"0.0.0.0:9002\"]\n").unwrap(), 9001);
        assert_eq!(port_of("[server]\nlisten = \"127.0.0.1:9003\"\n").unwrap(), 9003);
        assert_eq!(port_of("[storage]\n").unwrap(), DEFAULT_PORT);
        assert!(port_of("[server\n").unwrap_err().to_string().contains("nistru.toml"));
        assert_eq!(dev_port(&dir.path().join("other.toml")).unwrap(), DEFAULT_PORT);
    }

    #[test]
    fn a_directory_that_is_not_there_tells_what_to_do() {
        let target = Target {
            url: None,
            cert: None,
            key: None,
            ca: None,
            dir: "/nonexistent".into(),
            name: "demo".to_owned(),
        };
        let text = target.endpoint().unwrap_err().to_string();
        assert!(text.starts_with("/nonexistent/pki/ca.pem: no such file; start `nistru dev`"), "{text}");
    }
}
