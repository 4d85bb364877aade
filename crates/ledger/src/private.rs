//! Promises files at a place of one's own choice that are their owner's alone, as those of a run
//! folder are. Must never follow a symbolic link, nor write over or into what is somebody else's.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::path::Path;

use serde::Deserialize;

use super::folder::{private_file, restrict};
use tapwave_core::limits;

/// A new file; never one that exists, a symbolic link included.
///
/// # Errors
/// If something is there, or the system says no.
pub fn create_private(path: &Path) -> io::Result<File> {
    let file = private_file(OpenOptions::new().write(true).create_new(true)).open(path)?;
    restricted(path).inspect_err(|_| drop(std::fs::remove_file(path)))?;
    Ok(file)
}

/// A log to go on with: made if it is not there, and made its owner's alone if it is not.
///
/// # Errors
/// If what is there is a symbolic link, no file, somebody else's, or no log of this program; or
/// the system says no.
pub fn append_to_log(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    private_file(&mut options);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // A pipe that nobody reads is not waited for.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.custom_flags(flags.bits().cast_signed());
    }
    // Behind a slash a link would be followed.
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

/// Whether a file holds nothing, or begins with a line of ours.
fn is_log(file: &mut File) -> io::Result<bool> {
    #[derive(Deserialize)]
    struct LogLine {
        timestamp: String,
        target: String,
    }
    let mut begin = Vec::new();
    file.take(limits::MAX_LOG_LINE_BYTES).read_to_end(&mut begin)?;
    let line = begin.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let ours = |line: LogLine| {
        let name = line.target.split("::").next().unwrap_or_default();
        (name == "tapwave" || name.starts_with("tapwave_"))
            && line.timestamp.parse::<jiff::Timestamp>().is_ok()
    };
    Ok(begin.is_empty() || serde_json::from_slice(line).is_ok_and(ours))
}

fn restricted(path: &Path) -> io::Result<()> {
    restrict(path).map_err(io::Error::other)
}
