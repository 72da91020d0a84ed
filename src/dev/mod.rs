//! `nistru dev`: a directory in which a broker runs at once, with its own certificates, clients and event types.
//!
//! Everything is made only where it is missing, so edits stay, and what was removed comes back.

mod files;
mod pki;

use crate::config::{Config, Problem};
use files::Access;
use std::fs;
use std::path::{Path, PathBuf};

/// The port of a new directory when nobody asks for another.
pub const DEFAULT_PORT: u16 = 8443;

/// Makes what is missing in `dir`: `pki/`, `registry/`, `nistru.toml`, `data/`. A new `nistru.toml` gets `port`.
/// Returns the files that were made.
pub fn scaffold(dir: &Path, port: u16) -> Result<Vec<PathBuf>, Problem> {
    let pki = dir.join("pki");
    for name in ["pki", "registry/clients", "registry/types", "registry/schemas", "data"] {
        make_dir(&dir.join(name))?;
    }
    let mut created = pki::Pki::complete(&pki, &pki::CLIENTS)?.created;
    let settings = files::settings(port);
    let texts = files::REGISTRY.into_iter().chain([("nistru.toml", settings.as_str())]);
    for (path, content) in texts {
        let path = dir.join(path);
        if files::create(&path, content, Access::Public)? {
            created.push(path);
        }
    }
    Ok(created)
}

/// Makes key and certificate of one more client in the directory, unless they are there. Its file in the registry is up to
/// the caller.
pub fn add_client(dir: &Path, name: &str) -> Result<(), Problem> {
    pki::Pki::complete(&dir.join("pki"), &[name]).map(|_| ())
}

/// The configuration that `nistru dev` runs with: that of `dir`, completed first, with `port` and `cores` in
/// place of what it says. With `port`, the admin listener moves to `port` + 1000; port 0 means any free port.
pub fn config(dir: &Path, port: Option<u16>, cores: Option<usize>) -> Result<Config, Vec<Problem>> {
    scaffold(dir, port.unwrap_or(DEFAULT_PORT)).map_err(|problem| vec![problem])?;
    let mut config = Config::load(&config_file(dir))?;
    if let Some(port) = port {
        config.server.listen.iter_mut().for_each(|address| address.set_port(port));
        config.admin.listen.iter_mut().for_each(|address| address.set_port(files::admin_port(port)));
    }
    config.server.cores = cores.or(config.server.cores);
    Ok(config)
}

/// The configuration file of the directory.
pub fn config_file(dir: &Path) -> PathBuf {
    dir.join("nistru.toml")
}

/// Commands to paste that produce and consume against the broker of `dir` on `port`. `program` is how this
/// program was called.
pub fn commands(dir: &Path, port: u16, program: &str) -> String {
    let event = r#"{"specversion":"1.0","id":"1","source":"urn:demo","type":"Demo.Load.Record.Created","data":{"number":1,"name":"first"}}"#;
    let as_demo =
        format!("--dir {} --as demo --url https://localhost:{port}", quoted(&dir.to_string_lossy()));
    let pki = |name: &str| quoted(&dir.join("pki").join(name).to_string_lossy()).into_owned();
    let program = quoted(program);
    format!(
        "Consume, in another terminal:\n\n  {program} consume {as_demo}\n\n\
         Produce with curl:\n\n  curl --cacert {ca} --cert {certificate} --key {key} \\\n    \
         -H 'Content-Type: application/cloudevents+json' -d '{event}' \\\n    \
         https://localhost:{port}/ce/produce/event\n\n\
         Produce one event a line:\n\n  echo '{event}' | {program} produce {as_demo}\n",
        ca = pki("ca.pem"),
        certificate = pki("demo.pem"),
        key = pki("demo.key"),
    )
}

/// A word for a POSIX shell.
fn quoted(word: &str) -> std::borrow::Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:".contains(&byte);
    match !word.is_empty() && word.bytes().all(is_plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', r"'\''")).into(),
    }
}

fn make_dir(dir: &Path) -> Result<(), Problem> {
    fs::create_dir_all(dir).map_err(|error| Problem::of_file(dir, format!("cannot be made: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    fn new() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        scaffold(dir.path(), DEFAULT_PORT).unwrap();
        dir
    }

    /// Every file of `dir` with its content.
    fn content(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => found.extend(content(&entry)),
                false => drop(found.insert(entry.clone(), fs::read(&entry).unwrap())),
            }
        }
        found
    }

    #[test]
    fn a_new_directory_is_complete_and_without_problems() {
        let dir = new();
        let config = config(dir.path(), None, None).unwrap();
        assert_eq!(config.server.listen[0].to_string(), "127.0.0.1:8443");
        assert!(config.storage.dir.is_dir());
        let now = rustls::pki_types::UnixTime::now();
        let problems = crate::cli::check::check(&config_file(dir.path()), now);
        assert_eq!(problems, []);
    }

    #[test]
    fn a_second_run_changes_nothing_and_keeps_edits() {
        let dir = new();
        let client = dir.path().join("registry/clients/asp.toml");
        fs::write(&client, "edited").unwrap();
        let before = content(dir.path());
        assert_eq!(scaffold(dir.path(), 9999).unwrap(), Vec::<PathBuf>::new());
        assert_eq!(content(dir.path()), before);
    }

    #[test]
    fn what_was_removed_comes_back() {
        let dir = new();
        let removed = [
            "pki/asp.pem",
            "pki/asp.key",
            "pki/ms.pem",
            "nistru.toml",
            "registry/types/Demo.Load.Blob.Created.toml",
        ];
        for name in removed {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        let mut made = scaffold(dir.path(), DEFAULT_PORT).unwrap();
        made.sort();
        let mut expected = removed.map(|name| dir.path().join(name));
        expected.sort();
        assert_eq!(made, expected);
        let now = rustls::pki_types::UnixTime::now();
        assert_eq!(crate::cli::check::check(&config_file(dir.path()), now), []);
    }

    #[test]
    fn half_a_pair_that_cannot_be_completed_is_told() {
        let dir = new();
        fs::remove_file(dir.path().join("pki/asp.key")).unwrap();
        let problem = scaffold(dir.path(), DEFAULT_PORT).unwrap_err();
        assert!(problem.file.ends_with("pki/asp.key") && problem.message.contains("asp.pem"), "{problem}");
    }

    #[test]
    fn a_missing_authority_key_matters_only_when_something_must_be_signed() {
        let dir = new();
        fs::remove_file(dir.path().join("pki/ca.key")).unwrap();
        assert_eq!(scaffold(dir.path(), DEFAULT_PORT).unwrap(), Vec::<PathBuf>::new());
        fs::remove_file(dir.path().join("pki/demo.pem")).unwrap();
        assert!(scaffold(dir.path(), DEFAULT_PORT).is_err());
        fs::remove_file(dir.path().join("pki/ca.pem")).unwrap();
        let problem = scaffold(dir.path(), DEFAULT_PORT).unwrap_err();
        assert!(problem.file.ends_with("pki/ca.key"), "{problem}");
    }

    #[test]
    fn keys_are_for_the_owner_only() {
        let dir = new();
        for name in ["ca", "server", "asp", "ms", "police", "cnam", "demo"] {
            let key = fs::metadata(dir.path().join(format!("pki/{name}.key"))).unwrap();
            assert_eq!(key.permissions().mode() & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn the_port_and_the_cores_asked_for_win_over_the_file() {
        let dir = new();
        let asked = config(dir.path(), Some(9000), Some(2)).unwrap();
        assert!(asked.server.listen.iter().all(|address| address.port() == 9000));
        assert_eq!(asked.admin.listen[0].port(), 10_000);
        assert_eq!(asked.server.cores, Some(2));
        let other = tempfile::tempdir().unwrap();
        config(other.path(), Some(9001), None).unwrap();
        let kept = config(other.path(), None, None).unwrap();
        assert_eq!((kept.server.listen[0].port(), kept.admin.listen[0].port()), (9001, 10_001));
    }

    #[test]
    fn the_commands_survive_blanks_and_quotes_in_the_path() {
        assert_eq!(quoted("./nistru-dev"), "./nistru-dev");
        assert_eq!(quoted("it's here"), r"'it'\''s here'");
        let commands = commands(Path::new("/tmp/a b"), 7000, "nistru");
        assert!(commands.contains("--cert '/tmp/a b/pki/demo.pem'"), "{commands}");
        assert!(commands.contains("https://localhost:7000/ce/produce/event"), "{commands}");
    }

    /// Runs only where OpenSSL is installed; it is stricter than rustls about extensions.
    #[test]
    fn openssl_accepts_the_certificates() {
        if Command::new("openssl").arg("version").output().is_err() {
            return;
        }
        let dir = new();
        let pki = dir.path().join("pki");
        for (name, purpose) in [("server", "sslserver"), ("asp", "sslclient"), ("demo", "sslclient")] {
            let output = Command::new("openssl")
                .args(["verify", "-x509_strict", "-check_ss_sig", "-purpose", purpose, "-CAfile"])
                .args([pki.join("ca.pem"), pki.join(format!("{name}.pem"))])
                .output()
                .unwrap();
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
