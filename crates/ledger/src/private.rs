//! Promises private files at a path of the user's choice, with the rules of a run folder. Must never
//! follow a symbolic link, nor write to a file of another user or program.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::path::Path;

use serde::Deserialize;

use super::folder::{private_file, restrict};
use tapwave_core::limits;

/// Creates a file; never over an existing one, a symbolic link included.
pub fn create_private(path: &Path) -> io::Result<File> {
    let file = private_file(OpenOptions::new().write(true).create_new(true)).open(path)?;
    restricted(path).inspect_err(|_| drop(std::fs::remove_file(path)))?;
    Ok(file)
}

/// Opens or creates a log, for its owner alone. Anything but an empty file or a log of tapwave, owned
/// by this user, is refused.
pub fn append_to_log(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    private_file(&mut options);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Does not wait for the reader of a pipe.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.custom_flags(flags.bits().cast_signed());
    }
    // With a slash at the end a link would be followed.
    let path: &Path = &path.components().collect::<std::path::PathBuf>();
    let mut file = options.open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is no regular file; name another one"));
    }
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::uid(&found) != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("it belongs to another user; name another file"));
    }
    if !is_log(&mut file)? {
        return Err(io::Error::other("it is not empty and no log of tapwave; name another file"));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = found.permissions().mode();
        if mode & 0o077 != 0 {
            file.set_permissions(std::fs::Permissions::from_mode(mode & 0o700))?;
        }
    }
    if found.len() == 0 {
        restricted(path)?;
    }
    Ok(file)
}

/// Whether a file is empty or begins with a log line of tapwave.
fn is_log(file: &mut File) -> io::Result<bool> {
    #[derive(Deserialize)]
    struct LogLine {
        timestamp: String,
        target: String,
    }
    let mut start = Vec::new();
    file.take(limits::MAX_LOG_LINE_BYTES).read_to_end(&mut start)?;
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_ours = |line: LogLine| {
        let name = line.target.split("::").next().unwrap_or_default();
        (name == "tapwave" || name.starts_with("tapwave_"))
            && line.timestamp.parse::<jiff::Timestamp>().is_ok()
    };
    Ok(start.is_empty() || serde_json::from_slice(line).is_ok_and(is_ours))
}

fn restricted(path: &Path) -> io::Result<()> {
    restrict(path).map_err(io::Error::other)
}
