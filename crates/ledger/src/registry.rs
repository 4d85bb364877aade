//! Promises to find the runs of this machine by name, by path, and by the passes they issued, and to
//! list also those that it cannot read. Must never write to a run.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use jiff::Timestamp;

use super::connection;
use super::fault::LedgerError;
use super::folder::{self, FolderError, RunFolder, private_file};
use super::record::{About, Counts};
use super::store;
use tapwave_core::ids::{MethodId, RunId};
use tapwave_core::limits;

/// The paths of runs with a folder of their own (`--run`), one per line.
const ELSEWHERE: &str = "elsewhere";
const LATEST: &str = "latest";

/// Why a run was not found.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("failed to find a run called {name:?}{}; `tapwave runs` lists them", nearest(near))]
    NoSuchRun { name: String, near: Vec<String> },
    /// The text is a path, or the name of a file.
    #[error("failed to find {}: nothing is there; check the path, or give a run's name, which `tapwave runs` lists", .0.display())]
    NothingThere(PathBuf),
    #[error("failed to find a run in {}: it is a file; give a run's name or its folder, `tapwave runs` lists them", .0.display())]
    IsAFile(PathBuf),
    /// Two runs have that name: a cleanup of the wrong one could not be undone.
    #[error(
        "failed to choose between two runs called {name:?}: one is in {}, another in {}; give the path of the one that is meant",
        one.display(),
        other.display()
    )]
    Ambiguous { name: String, one: PathBuf, other: PathBuf },
    #[error("failed to find the latest run: there is none in {}; `tapwave run WAVE.csv -r RECIPIENT` starts one", .0.display())]
    NoRuns(PathBuf),
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// A run as [`Registry::list`] shows it.
#[derive(Debug)]
pub struct Listed {
    pub name: String,
    pub path: PathBuf,
    pub summary: Result<RunSummary, LedgerError>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSummary {
    pub about: About,
    pub counts: Counts,
    pub closed: Option<Timestamp>,
    pub purged: Option<Timestamp>,
}

/// The data folder: `chosen` if given (the value of `TAPWAVE_HOME`), else `tapwave` in the user's
/// local data folder. Runs without `--run` are in `runs` below it.
pub fn default_home(chosen: Option<PathBuf>) -> Result<PathBuf, FolderError> {
    if let Some(chosen) = chosen.filter(|path| !path.as_os_str().is_empty()) {
        return Ok(chosen);
    }
    let places = etcetera::choose_base_strategy().map_err(|_| FolderError::NoHome)?;
    // On Windows the data folder roams, often over a network; the cache folder is local.
    let local = if cfg!(windows) { places.cache_dir() } else { places.data_dir() };
    Ok(local.join("tapwave"))
}

#[derive(Debug, Clone)]
pub struct Registry {
    home: PathBuf,
}

impl RunFolder {
    /// The id of its run, if it has one that can be read.
    #[must_use]
    pub fn run_id(&self) -> Option<RunId> {
        let db = connection::open_reader(&self.join(folder::LEDGER)).ok()?;
        store::about(&db).ok().map(|about| about.id)
    }
}

impl Registry {
    /// `home` is a [`default_home`], which need not exist.
    #[must_use]
    pub fn new(home: PathBuf) -> Self {
        Self { home }
    }

    /// A free folder for a new run, with the wave's name, the time, and a number if need be.
    #[must_use]
    pub fn propose(&self, wave: &Path, now: Timestamp) -> PathBuf {
        let name = format!("{}-{}", safe_stem(wave), now.strftime("%Y%m%dT%H%M%SZ"));
        let runs = self.runs();
        let numbered = (2_u32..).map(|number| runs.join(format!("{name}-{number}")));
        std::iter::once(runs.join(&name))
            .chain(numbered)
            .find(|path| path.symlink_metadata().is_err())
            .unwrap_or_else(|| runs.join(&name))
    }

    /// Remembers a run that is not in the data folder. One whose path is not one line of text can
    /// be found only by its path.
    pub fn remember(&self, folder: &RunFolder) -> Result<(), FolderError> {
        let Some(text) = folder.path().to_str().filter(|text| !text.contains(['\n', '\r'])) else {
            return Ok(());
        };
        if self.is_at_home(folder) || self.elsewhere().iter().any(|known| known == folder.path()) {
            return Ok(());
        }
        let path = self.home.join(ELSEWHERE);
        let failed = |source| FolderError::Io { doing: "write", path: path.clone(), source };
        folder::private_home(&self.home)?;
        private_file(OpenOptions::new().append(true).create(true))
            .open(&path)
            .and_then(|mut file| file.write_all(format!("{text}\n").as_bytes()))
            .map_err(failed)
    }

    /// A name by which [`Registry::locate`] will always find this run and no other: its own if it is
    /// in the data folder, else its path.
    #[must_use]
    pub fn word_for(&self, folder: &RunFolder) -> String {
        let name = folder.name();
        let is_found = || self.locate(&name).is_ok_and(|found| found == *folder);
        // A name that begins with a dash would be taken for an option.
        if self.is_at_home(folder) && !name.starts_with('-') && is_found() {
            return name;
        }
        folder.path().display().to_string()
    }

    /// Finds a run by `latest`, its name, or the path of its folder.
    pub fn locate(&self, text: &str) -> Result<RunFolder, RegistryError> {
        if text == LATEST {
            return self.latest();
        }
        let folders = self.folders();
        let mut named = folders.iter().filter(|folder| folder.name() == text);
        match (named.next(), named.next()) {
            (Some(folder), None) => return Ok(folder.clone()),
            (Some(one), Some(other)) => {
                return Err(RegistryError::Ambiguous {
                    name: text.to_owned(),
                    one: one.path().to_owned(),
                    other: other.path().to_owned(),
                });
            }
            (None, _) => {}
        }
        match RunFolder::open(Path::new(text)) {
            Ok(folder) => Ok(folder),
            Err(FolderError::Missing(path)) if looks_like_path(text) => {
                Err(RegistryError::NothingThere(path))
            }
            Err(FolderError::NotAFolder(path)) => Err(RegistryError::IsAFile(path)),
            Err(FolderError::Missing(_)) => Err(RegistryError::NoSuchRun {
                name: text.to_owned(),
                near: nearest_names(text, folders.iter().map(RunFolder::name)),
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// Every run, the newest first; those that cannot be read come last.
    #[must_use]
    pub fn list(&self) -> Vec<Listed> {
        let mut runs: Vec<Listed> = self
            .folders()
            .into_iter()
            .map(|folder| Listed {
                name: folder.name(),
                path: folder.path().to_owned(),
                summary: summary(&folder),
            })
            .collect();
        runs.sort_by_cached_key(|run| {
            let created = run.summary.as_ref().map(|summary| summary.about.created);
            (Reverse(created.ok()), run.name.clone())
        });
        runs
    }

    /// Which runs of this machine issued these passes, each as [`Registry::word_for`] names it. Skips
    /// runs that cannot be read.
    #[must_use]
    pub fn issuers_by_name(&self, methods: &[MethodId]) -> HashMap<MethodId, String> {
        let mut issuers = HashMap::new();
        for folder in self.folders() {
            let Ok(db) = connection::open_reader(&folder.join(folder::LEDGER)) else { continue };
            let is_ours = |method: &&MethodId| store::has_pass(&db, method).is_ok_and(|has| has);
            let ours: Vec<&MethodId> = methods.iter().filter(is_ours).collect();
            if !ours.is_empty() {
                let name = self.word_for(&folder);
                issuers.extend(ours.into_iter().map(|method| (method.clone(), name.clone())));
            }
        }
        issuers
    }

    /// A run that cannot be read counts by its file's date: the operator does not mean an older one.
    fn latest(&self) -> Result<RunFolder, RegistryError> {
        let created = |folder: &RunFolder| {
            let path = folder.join(folder::LEDGER);
            let about = connection::open_reader(&path).ok().and_then(|db| store::about(&db).ok());
            about.map(|about| about.created).or_else(|| {
                let written = path.metadata().and_then(|file| file.modified());
                Timestamp::try_from(written.ok()?).ok()
            })
        };
        self.folders()
            .into_iter()
            .map(|folder| (created(&folder), folder))
            .max_by(|(one, a), (other, b)| one.cmp(other).then_with(|| a.name().cmp(&b.name())))
            .map(|(_, folder)| folder)
            .ok_or_else(|| RegistryError::NoRuns(self.runs()))
    }

    fn is_at_home(&self, folder: &RunFolder) -> bool {
        self.runs().canonicalize().is_ok_and(|runs| {
            folder.path().parent().and_then(|parent| parent.canonicalize().ok()) == Some(runs)
        })
    }

    fn runs(&self) -> PathBuf {
        self.home.join("runs")
    }

    /// All folders with a finished ledger.
    fn folders(&self) -> Vec<RunFolder> {
        let at_home = std::fs::read_dir(self.runs())
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok().map(|entry| entry.path()));
        let mut folders: Vec<RunFolder> = at_home
            .chain(self.elsewhere())
            .filter_map(|path| RunFolder::open(&path).ok())
            .filter(RunFolder::holds_run)
            .collect();
        folders.sort_by(|one, other| one.path().cmp(other.path()));
        folders.dedup();
        folders
    }

    fn elsewhere(&self) -> Vec<PathBuf> {
        let mut text = String::new();
        let read = private_file(OpenOptions::new().read(true))
            .open(self.home.join(ELSEWHERE))
            .and_then(|file| file.take(limits::MAX_NOTE_BYTES).read_to_string(&mut text));
        // If it cannot be read, these runs are not listed, but their paths still work.
        let read: io::Result<usize> = read;
        read.map_or_else(|_| Vec::new(), |_| text.lines().map(PathBuf::from).collect())
    }
}

fn summary(folder: &RunFolder) -> Result<RunSummary, LedgerError> {
    let path = folder.join(folder::LEDGER);
    let db = connection::open_reader(&path)?;
    let read = || {
        Ok(RunSummary {
            about: store::about(&db)?,
            counts: store::counts(&db)?,
            closed: store::closed(&db)?,
            purged: store::purged(&db)?,
        })
    };
    read().map_err(|error| connection::explained(&path, error))
}

/// The wave's file name without its extension, in characters that need no quoting anywhere.
fn safe_stem(wave: &Path) -> String {
    let stem = wave.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let safe: String = stem
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
        .take(limits::MAX_RUN_STEM)
        .collect();
    let safe = safe.trim_matches('-');
    if safe.is_empty() { "wave".to_owned() } else { safe.to_owned() }
}

/// Whether this is meant as a path: it has a separator, or an extension with a letter. Names from
/// [`Registry::propose`] have neither.
fn looks_like_path(text: &str) -> bool {
    let extension = Path::new(text).extension().and_then(|extension| extension.to_str());
    text.contains(std::path::is_separator)
        || extension.is_some_and(|extension| extension.contains(|c: char| c.is_ascii_alphabetic()))
}

fn nearest(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!(" (nearest: {})", near.join(", ")) }
}

fn nearest_names(text: &str, names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<(usize, String)> = names.map(|name| (distance(text, &name), name)).collect();
    names.sort();
    names.truncate(limits::NEAREST_RUNS);
    names.into_iter().map(|(_, name)| name).collect()
}

/// The edit distance; zero for a part of the name.
fn distance(typed: &str, name: &str) -> usize {
    if name.to_lowercase().contains(&typed.to_lowercase()) {
        return 0;
    }
    strsim::damerau_levenshtein(typed, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{about, draft_with_rows, time};

    async fn make(registry: &Registry, path: &Path, created: &str) -> RunFolder {
        let folder = RunFolder::create(path).expect("made");
        registry.remember(&folder).expect("noted");
        let mut about = about();
        about.name = folder.name();
        about.created = time(created);
        let ledger = draft_with_rows(&folder, 3).publish(&about).expect("published");
        ledger.shut().await;
        folder
    }

    #[tokio::test]
    async fn runs_are_found_by_latest_name_and_path() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let registry = Registry::new(place.path().join("home"));
        assert!(matches!(registry.locate("latest"), Err(RegistryError::NoRuns(_))));

        let first = registry.propose(Path::new("März 2026.csv"), time("2026-03-01T08:00:00Z"));
        assert_eq!(first, place.path().join("home/runs/M-rz-2026-20260301T080000Z"));
        let first = make(&registry, &first, "2026-03-01T08:00:00Z").await;
        let again = registry.propose(Path::new("März 2026.csv"), time("2026-03-01T08:00:00Z"));
        assert!(again.ends_with("M-rz-2026-20260301T080000Z-2"), "{again:?}");
        let away = make(&registry, &place.path().join("away"), "2026-03-02T08:00:00Z").await;
        registry.remember(&away).expect("noted once");

        assert_eq!(registry.locate("latest").expect("found"), away);
        assert_eq!(registry.locate("away").expect("found"), away);
        assert_eq!(registry.locate(&first.name()).expect("found"), first);
        assert_eq!(registry.locate(&first.path().to_string_lossy()).expect("found"), first);
        let missed = registry.locate("awax").expect_err("no such run").to_string();
        assert!(missed.contains("\"awax\" (nearest: away, "), "{missed}");

        let listed = registry.list();
        let names: Vec<&str> = listed.iter().map(|run| run.name.as_str()).collect();
        assert_eq!(names, ["away", first.name().as_str()]);
        let summary = listed[0].summary.as_ref().expect("readable");
        assert_eq!((summary.counts.rows(), summary.closed), (3, None));
    }

    #[tokio::test]
    async fn a_run_that_cannot_be_read_is_listed_last_with_its_error() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let registry = Registry::new(place.path().to_owned());
        make(&registry, &place.path().join("runs/good"), "2026-03-01T08:00:00Z").await;
        let bad = RunFolder::create(&place.path().join("runs/bad")).expect("made");
        std::fs::write(bad.join(folder::LEDGER), "no database").expect("written");
        let listed = registry.list();
        assert_eq!(listed[0].name, "good");
        let error = listed[1].summary.as_ref().expect_err("unreadable").to_string();
        assert!(error.contains("damaged"), "{error}");
        // Written just now: the operator does not mean the one before it.
        assert_eq!(registry.locate("latest").expect("found").name(), "bad");
    }

    #[test]
    fn a_path_is_told_apart_from_a_name() {
        for path in ["nope.age", "./nope", "a/b", "wave.csv", "/tmp"] {
            assert!(looks_like_path(path), "{path}");
        }
        for name in ["wave-20260301T080000Z", "nope", "latest", "wave.2026", "."] {
            assert!(!looks_like_path(name), "{name}");
        }
    }

    #[test]
    fn the_home_can_be_chosen() {
        let chosen = default_home(Some("/srv/tapwave".into())).expect("as chosen");
        assert_eq!(chosen, Path::new("/srv/tapwave"));
        if let Ok(home) = default_home(Some(PathBuf::new())) {
            assert!(home.ends_with("tapwave"), "an empty variable counts as unset");
        }
    }

    #[test]
    fn stems_are_safe_and_similar_names_are_near() {
        assert_eq!(safe_stem(Path::new("../..; rm -rf ~.csv")), "rm--rf");
        assert_eq!(safe_stem(Path::new("日本.csv")), "wave");
        assert_eq!(distance("wave", "my-wave-2026"), 0);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 0);
    }
}
