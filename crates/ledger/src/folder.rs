//! Promises that a run's folder and files belong to their owner alone, on a file system where locks
//! and modes work. Must never follow a symbolic link, loosen a permission, or delete what it did not
//! create.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::path::{Component, Path, PathBuf};

#[cfg(windows)]
use tapwave_core::programs::program;
use tapwave_core::shown::{escaped, shell_word};

pub(super) const LEDGER: &str = "ledger.db";
/// The unfinished database.
pub(super) const DRAFT: &str = "ledger.db.new";
pub(super) const LOCK: &str = "ledger.lock";
/// Who has the lock: a file of its own, since Windows lets nobody read a locked file.
pub(super) const HOLDER: &str = "ledger.holder";
pub(super) const LOG: &str = "log.jsonl";
pub(super) const HANDOFF: &str = "handoff";

/// Why a folder cannot hold a run.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It could lead elsewhere tomorrow.
    #[error("failed to use {}: it is a symbolic link; name the place it leads to", .0.display())]
    Symlink(PathBuf),
    #[error("failed to use {}: it is no folder; name another one with `--run`", .0.display())]
    NotAFolder(PathBuf),
    #[error("failed to find {}; `tapwave runs` lists the runs of this machine", .0.display())]
    Missing(PathBuf),
    #[error(
        "failed to make a run in {}: there is one already; carry on with it, or name another \
         folder with `--run`",
        .0.display()
    )]
    HoldsRun(PathBuf),
    #[error(
        "failed to use {}: it is not empty and holds no run (there is {}); name a new \
         folder with `--run`",
        path.display(),
        escaped(found)
    )]
    NotEmpty { path: PathBuf, found: String },
    #[error(
        "failed to use {}: it belongs to another user ({owner}), who decides what it says; work as \
         that user, or copy it into a folder of your own and look at it first",
        .path.display()
    )]
    NotOurs { path: PathBuf, owner: u32 },
    /// A symbolic link, or a file with a second hard link.
    #[error(
        "failed to use {}: it is no file of this folder alone, so that others may write it; copy \
         the folder and look at the copy first",
        .0.display()
    )]
    Shared(PathBuf),
    /// The data folder, which says what is trusted, is a link that could lead elsewhere tomorrow.
    #[error(
        "failed to use {}: it is a symbolic link; set TAPWAVE_HOME to the folder that it leads to",
        .0.display()
    )]
    LinkedHome(PathBuf),
    #[error(
        "failed to use {}: others may enter it (mode {mode:03o}); close it with `chmod 700 {}`",
        path.display(),
        shell_word(&path.display().to_string(), "FOLDER")
    )]
    TooOpen { path: PathBuf, mode: u32 },
    #[error(
        "failed to use {}: it is on a network share ({kind}), where the ledger's locks do not \
         hold; name a folder on a local disk with `--run`",
        path.display()
    )]
    Network { path: PathBuf, kind: String },
    /// A program copies the folder to the cloud.
    #[error(
        "failed to use {}: {service} copies it to other machines while it is written; name a \
         folder that is not synchronised with `--run`",
        path.display()
    )]
    Synced { path: PathBuf, service: &'static str },
    #[error("failed to find a folder for runs: no home directory is set; set TAPWAVE_HOME")]
    NoHome,
    #[error("failed to {doing} {}: {source}; check its permissions", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

/// A folder for a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder(PathBuf);

impl RunFolder {
    /// Creates the folder and its parents, for their owner alone; or takes an existing one that is
    /// empty except for what a crashed start left.
    pub fn create(path: &Path) -> Result<Self, FolderError> {
        let path = without_trailing(path)?;
        check_place(&path)?;
        if let Some(parent) = path.parent() {
            private_dir_builder(true).create(parent).map_err(io_error("make", parent))?;
        }
        match private_dir_builder(false).create(&path) {
            Ok(()) => {
                restrict(&path)?;
                sync_folder(path.parent().unwrap_or(&path))?;
                Self::resolved(&path)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let folder = Self::open(&path)?;
                folder.check_private()?;
                folder.check_empty()?;
                Ok(folder)
            }
            Err(error) => Err(io_error("make", &path)(error)),
        }
    }

    /// Takes an existing folder, whatever it holds. Whether it may be written is checked when its
    /// ledger is opened.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let path = without_trailing(path)?;
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => Err(FolderError::Symlink(path)),
            Ok(found) if !found.is_dir() => Err(FolderError::NotAFolder(path)),
            Ok(_) => Self::resolved(&path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(FolderError::Missing(path))
            }
            Err(error) => Err(io_error("look at", &path)(error)),
        }
    }

    /// The absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    #[must_use]
    pub fn name(&self) -> String {
        self.0.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    /// Whether it has a finished ledger.
    #[must_use]
    pub fn holds_run(&self) -> bool {
        std::fs::symlink_metadata(self.join(LEDGER)).is_ok_and(|found| found.is_file())
    }

    /// The folder for handoff files, created if it is missing.
    pub fn handoff(&self) -> Result<PathBuf, FolderError> {
        let path = self.join(HANDOFF);
        match private_dir_builder(false).create(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Self::open(&path)?;
            }
            Err(error) => return Err(io_error("make", &path)(error)),
        }
        Ok(path)
    }

    /// Opens the run's log for appending.
    pub fn log(&self) -> Result<File, FolderError> {
        let path = self.join(LOG);
        private_file(OpenOptions::new().append(true).create(true))
            .open(&path)
            .map_err(io_error("open", &path))
    }

    /// Checks that the folder is local, not synchronised, and its owner's alone.
    pub(super) fn check_writable(&self) -> Result<(), FolderError> {
        check_place(&self.0)?;
        self.check_private()
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Completes "the folder holds …".
    pub(super) fn contents(&self) -> String {
        let names: Vec<String> = std::fs::read_dir(&self.0)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        match names.iter().find(|name| !is_leftover(name)) {
            Some(other) => format!("other things ({})", escaped(other)),
            None if names.iter().any(|name| name.starts_with(DRAFT)) => {
                "a ledger that was never finished, so that nothing was issued".to_owned()
            }
            None => "nothing".to_owned(),
        }
    }

    /// `SQLite` refuses links anywhere in a path, and `/tmp` or `/home` may be one, so the path is
    /// resolved. That the folder itself is not a link was checked before.
    #[cfg(unix)]
    fn resolved(path: &Path) -> Result<Self, FolderError> {
        path.canonicalize().map(Self).map_err(io_error("resolve", path))
    }

    /// On Windows `c:\USERS` is `C:\Users`, and there are short names: resolved, a folder has one
    /// path.
    #[cfg(not(unix))]
    fn resolved(path: &Path) -> Result<Self, FolderError> {
        path.canonicalize().map(unprefixed).map(Self).map_err(io_error("resolve", path))
    }

    fn check_empty(&self) -> Result<(), FolderError> {
        if self.holds_run() {
            return Err(FolderError::HoldsRun(self.0.clone()));
        }
        for entry in std::fs::read_dir(&self.0).map_err(io_error("read", &self.0))? {
            let entry = entry.map_err(io_error("read", &self.0))?;
            let found = entry.file_name().to_string_lossy().into_owned();
            let empty_handoff = found == HANDOFF
                && std::fs::read_dir(entry.path()).is_ok_and(|mut files| files.next().is_none());
            if !is_leftover(&found) && !empty_handoff {
                return Err(FolderError::NotEmpty { path: self.0.clone(), found });
            }
        }
        Ok(())
    }

    /// Checks that only its user can change the folder and its ledger.
    #[cfg(unix)]
    pub fn check_private(&self) -> Result<(), FolderError> {
        use std::os::unix::fs::MetadataExt;
        let found = std::fs::symlink_metadata(&self.0).map_err(io_error("look at", &self.0))?;
        check_owner(&self.0, &found, 0o077)?;
        let mut log = self.join(LEDGER).into_os_string();
        log.push("-wal");
        for path in [self.join(LEDGER), log.into()] {
            // A link is refused where the file is opened.
            let found = std::fs::symlink_metadata(&path).ok().filter(|found| !found.is_symlink());
            let Some(found) = found else { continue };
            check_owner(&path, &found, 0)?;
            // Others may write through a second name.
            if !found.is_file() || found.nlink() > 1 {
                return Err(FolderError::Shared(path));
            }
        }
        Ok(())
    }

    /// Access lists cannot be read without unsafe code; they are set when a folder is created.
    #[cfg(not(unix))]
    pub fn check_private(&self) -> Result<(), FolderError> {
        Ok(())
    }
}

/// The absolute path without a slash or a dot at its end, with which the system would follow a link.
fn without_trailing(path: &Path) -> Result<PathBuf, FolderError> {
    let path = std::path::absolute(path).map_err(io_error("resolve", path))?;
    Ok(path.components().collect())
}

/// Removes `\\?\` where the path leads to the same place without it: not from a long path, nor where
/// a name would have another meaning.
#[cfg(not(unix))]
fn unprefixed(path: PathBuf) -> PathBuf {
    use std::path::Prefix;
    /// Windows allows 259 characters, including the files in the folder.
    const MAX_FOLDER: usize = 200;
    let Some(Component::Prefix(prefix)) = path.components().next() else { return path };
    let bare = match (prefix.kind(), path.to_str()) {
        (Prefix::VerbatimDisk(_), Some(text)) => text.strip_prefix(r"\\?\").map(str::to_owned),
        (Prefix::VerbatimUNC(..), Some(text)) => {
            text.strip_prefix(r"\\?\UNC").map(|share| format!(r"\{share}"))
        }
        _ => None,
    };
    // Windows changes dots and blanks at the end, and devices such as NUL.
    let is_same = |bare: &String| std::path::absolute(bare).is_ok_and(|read| *read == **bare);
    let bare = bare.filter(|bare| bare.encode_utf16().count() <= MAX_FOLDER && is_same(bare));
    bare.map_or(path, PathBuf::from)
}

/// Checks that `path`, which need not exist yet, is not shared with other machines.
fn check_place(path: &Path) -> Result<(), FolderError> {
    let path = std::path::absolute(path).map_err(io_error("resolve", path))?;
    // The part that exists is resolved: a link or a mapped drive may lead to a share.
    let real = path.ancestors().find_map(|existing| existing.canonicalize().ok());
    for place in std::iter::once(&path).chain(&real) {
        if let Some(service) = sync_service(place) {
            return Err(FolderError::Synced { path, service });
        }
        if is_unc(place) {
            return Err(FolderError::Network { path, kind: "a UNC path".to_owned() });
        }
    }
    match real.as_deref().and_then(network_kind) {
        Some(kind) => Err(FolderError::Network { path, kind }),
        None => Ok(()),
    }
}

/// Makes the entries of a folder durable: names created, changed or removed in it.
#[cfg(unix)]
pub fn sync_folder(path: &Path) -> Result<(), FolderError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(io_error("sync", path))
}

/// Windows makes names durable with its own journal, and cannot sync a folder.
#[cfg(not(unix))]
pub fn sync_folder(_: &Path) -> Result<(), FolderError> {
    Ok(())
}

/// Notices when the database, its write-ahead log, which holds the latest commits, or the lock file,
/// without which another process would write too, is no longer the file that was opened. Must not
/// open them: on Unix, closing one would release `SQLite`'s locks on it.
#[derive(Debug)]
pub(super) struct FileWatch {
    path: PathBuf,
    #[cfg(unix)]
    database: Option<FileId>,
    #[cfg(unix)]
    lock: Option<FileId>,
    /// The log exists from the first transaction until the database is closed.
    #[cfg(unix)]
    log: std::cell::Cell<Option<FileId>>,
}

impl FileWatch {
    pub(super) fn on(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            #[cfg(unix)]
            database: file_id(path),
            #[cfg(unix)]
            lock: file_id(&path.with_file_name(LOCK)),
            #[cfg(unix)]
            log: std::cell::Cell::default(),
        }
    }

    #[cfg(unix)]
    pub(super) fn is_there(&self) -> bool {
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        let log = file_id(Path::new(&log));
        let is_log_there = self.log.get().is_none_or(|known| log == Some(known));
        self.log.set(self.log.get().or(log));
        let is_lock_there = file_id(&self.path.with_file_name(LOCK)) == self.lock;
        let is_database_there = self.database.is_some() && file_id(&self.path) == self.database;
        is_database_there && is_log_there && is_lock_there
    }

    /// On Windows an open database cannot be replaced or moved.
    #[cfg(not(unix))]
    pub(super) fn is_there(&self) -> bool {
        self.path.exists()
    }
}

/// Device and inode.
#[cfg(unix)]
type FileId = (u64, u64);

#[cfg(unix)]
fn file_id(path: &Path) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// Sets options so that a new file is for its owner alone and no symbolic link is followed.
pub(super) fn private_file(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let no_follow = rustix::fs::OFlags::NOFOLLOW.bits();
        options.mode(0o600).custom_flags(no_follow.cast_signed());
    }
    options
}

/// Creates the data folder for its owner alone, if it is missing. One that others may write to is
/// refused: its files say what is trusted, and which run issues to whom.
pub fn private_home(home: &Path) -> Result<(), FolderError> {
    private_dir_builder(true).create(home).map_err(io_error("make", home))?;
    check_home(home)
}

/// The same check for an existing folder.
pub fn check_home(home: &Path) -> Result<(), FolderError> {
    let found = std::fs::symlink_metadata(home).map_err(io_error("look at", home))?;
    if found.is_symlink() {
        return Err(FolderError::LinkedHome(home.to_owned()));
    }
    #[cfg(unix)]
    check_owner(home, &found, 0o022)?;
    Ok(())
}

/// Checks that a folder or file belongs to this user, and that its mode has none of the bits of
/// `barred`.
#[cfg(unix)]
fn check_owner(path: &Path, found: &std::fs::Metadata, barred: u32) -> Result<(), FolderError> {
    use std::os::unix::fs::MetadataExt;
    // Root too: the other user controls what it says.
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(FolderError::NotOurs { path: path.to_owned(), owner: found.uid() });
    }
    let mode = found.mode() & 0o777;
    if mode & barred != 0 {
        return Err(FolderError::TooOpen { path: path.to_owned(), mode });
    }
    Ok(())
}

pub(super) fn private_dir_builder(parents: bool) -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.recursive(parents);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// Limits the access list of a folder or file to its owner and SYSTEM. New entries of a folder
/// inherit it.
#[cfg(windows)]
pub(super) fn restrict(path: &Path) -> Result<(), FolderError> {
    let system = std::env::var_os("SystemRoot").unwrap_or_else(|| r"C:\Windows".into());
    // The ids of OWNER RIGHTS and SYSTEM: their names depend on the language.
    let inheritance = if path.is_dir() { "(OI)(CI)" } else { "" };
    let grants = ["*S-1-3-4", "*S-1-5-18"].map(|who| format!("{who}:{inheritance}F"));
    // By its full path, so that nothing on PATH can replace it.
    let done = program(Path::new(&system).join(r"System32\icacls.exe"))
        .arg(path)
        .args(["/inheritance:r", "/grant:r", grants[0].as_str(), grants[1].as_str(), "/Q"])
        .output()
        .map_err(io_error("restrict", path))?;
    if done.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&done.stdout).into_owned();
    Err(io_error("restrict", path)(io::Error::other(words)))
}

/// Folders are created with mode 0700 and files with 0600; a umask can only remove from that.
#[cfg(not(windows))]
#[expect(clippy::unnecessary_wraps, reason = "the other platforms can fail here")]
pub(super) fn restrict(_: &Path) -> Result<(), FolderError> {
    Ok(())
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    move |source| FolderError::Io { doing, path: path.to_owned(), source }
}

/// Whether a start that crashed before it published its ledger may have left this.
fn is_leftover(name: &str) -> bool {
    [LOCK, HOLDER, LOG].contains(&name)
        || name
            .strip_prefix(DRAFT)
            .is_some_and(|rest| ["", "-journal", "-wal", "-shm"].contains(&rest))
}

fn is_unc(path: &Path) -> bool {
    use std::path::Prefix;
    matches!(
        path.components().next(),
        Some(Component::Prefix(prefix))
            if matches!(prefix.kind(), Prefix::UNC(..) | Prefix::VerbatimUNC(..))
    )
}

fn sync_service(path: &Path) -> Option<&'static str> {
    const SERVICES: [(&str, &str); 10] = [
        ("onedrive", "OneDrive"),
        ("dropbox", "Dropbox"),
        ("google drive", "Google Drive"),
        ("googledrive", "Google Drive"),
        ("icloud drive", "iCloud Drive"),
        ("iclouddrive", "iCloud Drive"),
        ("mobile documents", "iCloud Drive"),
        ("cloudstorage", "a cloud drive"),
        ("nextcloud", "Nextcloud"),
        ("box sync", "Box"),
    ];
    path.components().find_map(|component| {
        let name = component.as_os_str().to_string_lossy().to_lowercase();
        SERVICES.into_iter().find_map(|(folder, service)| {
            // "OneDrive - Contoso" and "Dropbox (Contoso)" count, "dropboxes" does not.
            let rest = name.strip_prefix(folder)?;
            (!rest.starts_with(char::is_alphanumeric)).then_some(service)
        })
    })
}

/// The name of the network file system that `path` lies on, if it is one.
#[cfg(target_os = "linux")]
fn network_kind(path: &Path) -> Option<String> {
    // Numbers from statfs(2). FUSE and 9p file systems are recognised by their mount.
    const NETWORKS: [(u32, &str); 9] = [
        (0x6969, "NFS"),
        (0x517B, "SMB"),
        (0xFF53_4D42, "CIFS"),
        (0xFE53_4D42, "SMB2"),
        (0x5346_414F, "AFS"),
        (0x6B41_4653, "AFS"),
        (0x7375_7245, "Coda"),
        (0x00C3_6400, "Ceph"),
        (0x0BD0_0BD0, "Lustre"),
    ];
    let kind = rustix::fs::statfs(path).ok()?.f_type;
    // The field is wider than the number on most machines, and signed.
    let magic = u32::try_from(i128::from(kind) & 0xFFFF_FFFF).ok()?;
    if let Some((_, name)) = NETWORKS.iter().find(|(number, _)| *number == magic) {
        return Some((*name).to_owned());
    }
    remote_mount(&std::fs::read_to_string("/proc/self/mountinfo").ok()?, path)
}

#[cfg(not(target_os = "linux"))]
fn network_kind(_: &Path) -> Option<String> {
    None
}

/// Finds the mount of `path` in the text of `/proc/self/mountinfo` (proc(5)).
///
/// Only file systems known to be remote count: FUSE and 9p also serve local ones, such as a
/// container's own disk. Windows drives under WSL are 9p with `aname=drvfs`; they have no shared
/// memory, which `SQLite` needs.
#[cfg(target_os = "linux")]
fn remote_mount(mounts: &str, path: &Path) -> Option<String> {
    const REMOTE: [&str; 12] = [
        "fuse.sshfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.glusterfs",
        "fuse.davfs",
        "fuse.gcsfuse",
        "fuse.blobfuse",
        "fuse.blobfuse2",
        "fuse.goofys",
        "fuse.juicefs",
        "fuse.cephfs",
        "davfs",
    ];
    let mut nearest: Option<(usize, &str, &str)> = None;
    for line in mounts.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let Some(point) = before.split(' ').nth(4) else { continue };
        let point = point.replace("\\040", " ");
        let depth = Path::new(&point).components().count();
        // A later mount on the same point covers an earlier one.
        if path.starts_with(&point) && nearest.is_none_or(|(deepest, ..)| depth >= deepest) {
            nearest = Some((depth, after.split(' ').next().unwrap_or_default(), after));
        }
    }
    let (_, kind, whole) = nearest?;
    let windows_drive = kind == "9p" && whole.contains("aname=drvfs");
    (windows_drive || REMOTE.contains(&kind)).then(|| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(unix)]
    use crate::create_private;

    fn home() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    #[test]
    fn a_run_folder_is_reused_until_it_has_a_finished_ledger() {
        let home = home();
        let path = home.path().join("runs").join("wave");
        let folder = RunFolder::create(&path).expect("made");
        std::fs::write(folder.join(DRAFT), "half a ledger").expect("written");
        std::fs::write(folder.join(LOCK), "").expect("written");
        folder.handoff().expect("made");
        assert_eq!(RunFolder::create(&path).expect("counts as empty"), folder);

        std::fs::write(folder.join("holiday.jpg"), "").expect("written");
        let refused = RunFolder::create(&path).expect_err("somebody's things");
        assert!(matches!(&refused, FolderError::NotEmpty { found, .. } if found == "holiday.jpg"));
        assert!(refused.to_string().contains("is not empty and holds no run"), "{refused}");
    }

    #[cfg(unix)]
    #[test]
    fn folder_and_files_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let mode =
            |path: &Path| std::fs::metadata(path).expect("is there").permissions().mode() & 0o777;
        let home = home();
        let folder = RunFolder::create(&home.path().join("runs/wave")).expect("made");
        create_private(&folder.join("one")).expect("made");
        folder.log().expect("opened");
        assert_eq!(mode(&home.path().join("runs")), 0o700);
        assert_eq!(mode(folder.path()), 0o700);
        assert_eq!(mode(&folder.handoff().expect("made")), 0o700);
        assert_eq!(mode(&folder.join("one")), 0o600);
        assert_eq!(mode(&folder.join(LOG)), 0o600);
        assert!(create_private(&folder.join("one")).is_err(), "never over an existing file");
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_others_may_enter_is_refused_with_the_remedy() {
        use std::os::unix::fs::PermissionsExt;
        let home = home();
        let path = home.path().join("open");
        std::fs::create_dir(&path).expect("made");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o750)).expect("set");
        let refused = RunFolder::create(&path).expect_err("others may enter");
        assert!(matches!(refused, FolderError::TooOpen { mode: 0o750, .. }), "{refused}");
        assert!(refused.to_string().contains("chmod 700"), "{refused}");
    }

    #[cfg(unix)]
    #[test]
    fn symbolic_links_are_never_followed() {
        let home = home();
        let real = RunFolder::create(&home.path().join("real")).expect("made");
        let link = home.path().join("link");
        std::os::unix::fs::symlink(real.path(), &link).expect("linked");
        assert!(matches!(RunFolder::open(&link), Err(FolderError::Symlink(_))));
        assert!(matches!(RunFolder::create(&link), Err(FolderError::Symlink(_))));

        let victim = home.path().join("victim");
        std::os::unix::fs::symlink(&victim, real.join("planted")).expect("linked");
        std::os::unix::fs::symlink(&victim, real.join(LOG)).expect("linked");
        std::os::unix::fs::symlink(home.path(), real.join(HANDOFF)).expect("linked");
        assert!(create_private(&real.join("planted")).is_err());
        assert!(real.log().is_err());
        assert!(real.handoff().is_err());
        assert!(!victim.exists());
    }

    #[test]
    fn synchronised_folders_are_refused_by_name() {
        for (path, service) in [
            ("/home/ada/OneDrive/runs", "OneDrive"),
            ("/home/ada/OneDrive - Contoso/runs", "OneDrive"),
            ("/home/ada/Dropbox (Contoso)/x", "Dropbox"),
            ("/Users/ada/Library/Mobile Documents/x", "iCloud Drive"),
            ("/home/ada/Google Drive/x", "Google Drive"),
        ] {
            let refused = check_place(Path::new(path)).expect_err(path);
            assert!(
                matches!(refused, FolderError::Synced { service: found, .. } if found == service),
                "{refused}"
            );
        }
        for fine in ["/home/ada/dropboxes/x", "/home/ada/runs", "/tmp/my onedrive"] {
            check_place(Path::new(fine)).expect(fine);
        }
    }

    #[cfg(windows)]
    #[test]
    fn unc_paths_are_refused() {
        let refused = check_place(Path::new(r"\\server\share\runs"));
        assert!(matches!(refused, Err(FolderError::Network { .. })));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_mount_is_judged_by_the_nearest_one() {
        let mounts = "\
22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:40 / /srv/my\\040share rw - fuse.sshfs ada@host:/ rw
31 30 0:41 / /srv/my\\040share/disk rw - ext4 /dev/sdb1 rw
32 22 0:42 / /mnt/c rw - 9p drvfs rw,aname=drvfs;path=C:\\
33 22 0:43 / /srv/jobs rw - 9p none rw,trans=fd
";
        let kind = |path: &str| remote_mount(mounts, Path::new(path));
        assert_eq!(kind("/srv/my share/runs").as_deref(), Some("fuse.sshfs"));
        assert_eq!(kind("/srv/my share/disk/runs"), None);
        assert_eq!(kind("/mnt/c/runs").as_deref(), Some("9p"));
        assert_eq!(kind("/srv/jobs/runs"), None, "a container's own disk");
        assert_eq!(kind("/home"), None);
    }
}
