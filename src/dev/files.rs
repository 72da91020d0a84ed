//! The files of a new development directory, and how a file is made without ever replacing one.

use crate::config::Problem;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The registry: path below the directory, content.
pub const REGISTRY: [(&str, &str); 12] = [
    ("registry/clients/asp.toml", include_str!("files/clients/asp.toml")),
    ("registry/clients/ms.toml", include_str!("files/clients/ms.toml")),
    ("registry/clients/police.toml", include_str!("files/clients/police.toml")),
    ("registry/clients/cnam.toml", include_str!("files/clients/cnam.toml")),
    ("registry/clients/demo.toml", include_str!("files/clients/demo.toml")),
    ("registry/types/ASP.RST.VP.Invalidated.toml", include_str!("files/types/ASP.RST.VP.Invalidated.toml")),
    ("registry/types/MS.eCMND.Person.Born.toml", include_str!("files/types/MS.eCMND.Person.Born.toml")),
    (
        "registry/types/Demo.Load.Record.Created.toml",
        include_str!("files/types/Demo.Load.Record.Created.toml"),
    ),
    ("registry/types/Demo.Load.Blob.Created.toml", include_str!("files/types/Demo.Load.Blob.Created.toml")),
    (
        "registry/schemas/ASP.RST.VP.Invalidated.json",
        include_str!("files/schemas/ASP.RST.VP.Invalidated.json"),
    ),
    ("registry/schemas/MS.eCMND.Person.Born.json", include_str!("files/schemas/MS.eCMND.Person.Born.json")),
    (
        "registry/schemas/Demo.Load.Record.Created.json",
        include_str!("files/schemas/Demo.Load.Record.Created.json"),
    ),
];

/// Access rights of a new file.
#[derive(Clone, Copy)]
pub enum Access {
    /// `0644`
    Public,
    /// `0600`
    Secret,
}

/// The configuration of a broker on the loopback addresses. Port 0 lets the system choose at each start.
pub fn settings(port: u16) -> String {
    let mut listen = format!("[\"127.0.0.1:{port}\"");
    if has_ipv6() {
        listen += &format!(", \"[::1]:{port}\"");
    }
    listen.push(']');
    include_str!("files/nistru.toml")
        .replace("@LISTEN@", &listen)
        .replace("@ADMIN_PORT@", &admin_port(port).to_string())
}

/// The port of the admin listener beside `port`, so that brokers on different ports do not collide.
pub fn admin_port(port: u16) -> u16 {
    match port {
        0 => 0,
        port => port.checked_add(1000).unwrap_or(0),
    }
}

/// Containers often have none.
fn has_ipv6() -> bool {
    std::net::UdpSocket::bind("[::1]:0").is_ok()
}

/// Makes the file `path` with `content`, whole or not at all, unless there is one; tells whether it did.
pub fn create(path: &Path, content: &str, access: Access) -> Result<bool, Problem> {
    let made = try_create(path, content.as_bytes(), access);
    made.map_err(|error| Problem::of_file(path, format!("cannot be made: {error}")))
}

fn try_create(path: &Path, content: &[u8], access: Access) -> io::Result<bool> {
    if path.symlink_metadata().is_ok() {
        return Ok(false);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = path.with_file_name(format!(".{name}.{}", std::process::id()));
    write(&draft, content, access)?;
    // Unlike a rename, a link fails when another process was faster.
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

fn write(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let mode = match access {
        Access::Public => 0o644,
        Access::Secret => 0o600,
    };
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_made_once_with_its_access_rights_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        assert!(create(&path, "first", Access::Secret).unwrap());
        assert!(!create(&path, "second", Access::Public).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_made_is_named() {
        let problem = create(Path::new("/nonexistent/x"), "", Access::Public).unwrap_err();
        assert!(problem.to_string().starts_with("/nonexistent/x: cannot be made: "), "{problem}");
    }

    #[test]
    fn the_admin_port_follows_the_port() {
        assert_eq!([8443, 0, 65_000].map(admin_port), [9443, 0, 0]);
    }
}
