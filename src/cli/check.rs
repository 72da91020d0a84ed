//! `nistru check`: everything that a broker reads at its start, checked in one run.

use crate::auth::{ServerTls, Verifier};
use crate::config::{Config, Problem, pem};
use crate::outgoing;
use crate::registry;
use crate::schema::SchemaSet;
use clap::Args;
use rustls::pki_types::UnixTime;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Check the configuration, and everything it names, without starting a broker.
///
/// Looks at registry, schemas and certificates as a whole and prints every problem with its file and place. The exit code is 1
/// when there is one.
#[derive(Args)]
pub struct Check {
    /// The configuration that `nistru serve` is to run with.
    #[arg(long, value_name = "FILE", default_value = "/etc/nistru/nistru.toml")]
    pub config: PathBuf,
}

impl Check {
    pub fn run(&self) -> ExitCode {
        let problems = check(&self.config, UnixTime::now());
        report(&problems, &self.config, io::stdout().lock()).unwrap_or(ExitCode::FAILURE)
    }
}

/// Checks the configuration in `config_file` and every file it names: certificates and keys, registry, schemas.
/// Returns all problems, sorted by file and place; none means that a broker would start with them.
pub fn check(config_file: &Path, now: UnixTime) -> Vec<Problem> {
    let config = match Config::load(config_file) {
        Ok(config) => config,
        Err(problems) => return problems,
    };
    let tls = ServerTls::load(&config.tls, &[], now);
    let registry = registry::load(&config);
    let mut problems = Vec::new();
    if let Ok(loaded) = &registry {
        problems.extend(
            SchemaSet::compile(&loaded.registry)
                .map_or_else(|found| loaded.schema_problems(&found), |_| Vec::new()),
        );
    }
    if let (Ok(tls), Ok(loaded)) = (&tls, &registry) {
        problems.extend(client_certificates(&tls.verifier, &loaded.certificate_files, now));
    }
    for service in config.services() {
        problems.extend(outgoing::check(service, now));
    }
    problems.extend(tls.err().unwrap_or_default());
    problems.extend(registry.err().unwrap_or_default());
    problems.sort();
    problems
}

/// Prints the problems, a line each, or that there are none. The exit code is 1 when there are problems.
pub fn report(problems: &[Problem], config_file: &Path, mut out: impl Write) -> io::Result<ExitCode> {
    for problem in problems {
        writeln!(out, "{problem}")?;
    }
    match problems.len() {
        0 => writeln!(out, "{}: no problems", config_file.display())?,
        1 => writeln!(out, "1 problem")?,
        count => writeln!(out, "{count} problems")?,
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// That the certificates the registry names would be let in today.
fn client_certificates(verifier: &Verifier, files: &BTreeSet<PathBuf>, now: UnixTime) -> Vec<Problem> {
    let check = |file: &PathBuf| {
        let chain = pem::certificates(file)?;
        match verifier.check(Some(&chain), now) {
            Ok(_) => Ok(()),
            Err(problem) => Err(Problem::of_file(file, problem.to_string())),
        }
    };
    files.iter().filter_map(|file| check(file).err()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev;
    use std::fs;
    use std::time::Duration;

    fn check_now(dir: &Path) -> Vec<String> {
        let problems = check(&dev::config_file(dir), UnixTime::now());
        problems
            .iter()
            .map(|problem| problem.to_string().replace(&format!("{}/", dir.display()), ""))
            .collect()
    }

    #[test]
    fn problems_of_all_kinds_of_files_are_found_in_one_run() {
        let dir = tempfile::tempdir().unwrap();
        dev::scaffold(dir.path(), 0).unwrap();
        fs::write(dir.path().join("pki/server.key"), "").unwrap();
        fs::write(dir.path().join("registry/types/Demo.Load.Blob.Created.toml"), "nam = 1\n").unwrap();
        fs::write(dir.path().join("registry/schemas/Demo.Load.Record.Created.json"), "{").unwrap();
        let found = check_now(dir.path());
        assert_eq!(found.len(), 4, "{found:#?}");
        assert!(found[0].starts_with("pki/server.key: expected a private key"), "{found:#?}");
        assert!(found[1].starts_with("registry/schemas/Demo.Load.Record.Created.json:1:1: expected JSON"));
        assert!(
            found[2].starts_with("registry/types/Demo.Load.Blob.Created.toml:1:1: the key `nam` is unknown")
        );
        assert!(
            found[3].starts_with("registry/types/Demo.Load.Blob.Created.toml:1:1: the key `name` is missing")
        );
    }

    #[test]
    fn a_schema_that_does_not_compile_is_reported_at_its_file() {
        let dir = tempfile::tempdir().unwrap();
        dev::scaffold(dir.path(), 0).unwrap();
        let schema = dir.path().join("registry/schemas/MS.eCMND.Person.Born.json");
        fs::write(schema, r#"{"type": "objekt"}"#).unwrap();
        let found = check_now(dir.path());
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(
            found[0].starts_with("registry/schemas/MS.eCMND.Person.Born.json: the schema cannot be used: ")
        );
    }

    #[test]
    fn certificates_that_would_not_be_let_in_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        dev::scaffold(dir.path(), 0).unwrap();
        dev::scaffold(other.path(), 0).unwrap();
        fs::copy(other.path().join("pki/asp.pem"), dir.path().join("pki/asp.pem")).unwrap();
        let found = check_now(dir.path());
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains("pki/asp.pem: the client certificate"), "{found:#?}");
        let later =
            UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs() + 11 * 365 * 86_400));
        let found = check(&dev::config_file(dir.path()), later);
        assert!(found.iter().any(|problem| problem.message.contains("expired")), "{found:#?}");
    }

    #[test]
    fn the_service_that_clients_come_from_is_checked_and_their_files_are_not() {
        let dir = tempfile::tempdir().unwrap();
        dev::scaffold(dir.path(), 0).unwrap();
        fs::write(dir.path().join("registry/clients/asp.toml"), "not looked at").unwrap();
        let config = dev::config_file(dir.path());
        let api = "source = \"mpass\"\n[registry.mpass]\nurl = \"https://mpass/api\"\ncertificate = \"pki/asp.pem\"\n\
                   key = \"pki/ms.key\"\nca = [\"pki/ca.pem\"]\n";
        let text =
            fs::read_to_string(&config).unwrap().replace("[registry]\n", &format!("[registry]\n{api}"));
        // The table of the API must come after the other settings of the registry.
        let text = text.replace(&format!("{api}dir = \"registry\"\n"), &format!("dir = \"registry\"\n{api}"));
        fs::write(&config, &text).unwrap();
        let found = check_now(dir.path());
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with("pki/ms.key: is not the key of the certificate in"), "{found:#?}");
        fs::write(&config, text.replace("ms.key", "asp.key")).unwrap();
        assert_eq!(check_now(dir.path()), Vec::<String>::new());
    }

    #[test]
    fn the_report_counts_the_problems_and_says_when_there_are_none() {
        let file = Path::new("n.toml");
        let mut out = Vec::new();
        let code = report(&[], file, &mut out).unwrap();
        assert_eq!((code, out.as_slice()), (ExitCode::SUCCESS, &b"n.toml: no problems\n"[..]));
        let mut out = Vec::new();
        let code = report(&[Problem::of_file(file, "bad")], file, &mut out).unwrap();
        assert_eq!((code, out.as_slice()), (ExitCode::FAILURE, &b"n.toml: bad\n1 problem\n"[..]));
    }
}
