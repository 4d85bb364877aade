//! Promises that every file for a recipient is recorded in the ledger with its digest as soon as
//! it is whole. Must never hand over a pass that nobody could confirm.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::seal::{HandoverError, Sealer};
use tapwave_core::ids::Line;
use tapwave_core::limits;
use tapwave_ledger::{Ledger, LedgerError, Pages, Unhanded};
use tapwave_seal::{Ciphertext, Container, HandoffError};

/// Writes this process's handoff files, then containers of the rows that no finished file holds.
/// Adds each file to `handoffs`, also if a later one fails.
pub(super) async fn hand_over(
    ledger: &Ledger,
    sealer: Sealer,
    kept_out: &HashSet<Line>,
    handoffs: &mut Vec<PathBuf>,
) -> Result<(), HandoverError> {
    let folder = ledger.folder().handoff().map_err(LedgerError::from)?;
    let (sets, spool) = sealer.into_parts();
    let labels: Vec<String> = sets.iter().map(|set| set.label().to_owned()).collect();
    let target = folder.clone();
    let (files, result) = blocking(move || {
        let mut files = Vec::new();
        let result = spool.finish(&sets, &target, |file| files.push(file));
        (files, result)
    })
    .await;
    for file in files {
        record(ledger, file.path, file.lines, handoffs).await?;
    }
    result?;
    hand_over_rest(ledger, &folder, &labels, kept_out, handoffs).await
}

/// Writes what an earlier process sealed into one container for each set of recipients.
async fn hand_over_rest(
    ledger: &Ledger,
    folder: &Path,
    labels: &[String],
    kept_out: &HashSet<Line>,
    handoffs: &mut Vec<PathBuf>,
) -> Result<(), HandoverError> {
    let mut rest: Vec<Unhanded> = Vec::new();
    let mut pages =
        Pages::new(async |after| ledger.rows_without_handoff(after, limits::ROWS_PER_READ).await);
    while let Some(rows) = pages.next().await? {
        rest.extend(rows.into_iter().filter(|row| !kept_out.contains(&row.line)));
    }
    rest.sort_unstable_by_key(|row| (row.set, row.line));
    for rows in rest.chunk_by(|one, two| one.set == two.set) {
        let set = rows[0].set;
        let label = labels.get(set as usize).ok_or(HandoffError::NoSet { set })?.clone();
        let mut container = Container::create(folder)?;
        for Unhanded { line, .. } in rows.iter().copied() {
            let sealed = ledger.ciphertext(line).await?.ok_or(HandoffError::Gone { line })?;
            container.add(line, &Ciphertext::restored(sealed)?)?;
        }
        let path = blocking(move || container.finish(&label)).await?;
        record(ledger, path, rows.iter().map(|row| row.line).collect(), handoffs).await?;
    }
    Ok(())
}

async fn record(
    ledger: &Ledger,
    path: PathBuf,
    lines: Vec<Line>,
    handoffs: &mut Vec<PathBuf>,
) -> Result<(), HandoverError> {
    let read = path.clone();
    let digest = blocking(move || digest(&read)).await.map_err(|source| LedgerError::Io {
        doing: "read",
        path: path.clone(),
        source,
    })?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    ledger.handed_off(name, digest, lines).await?;
    handoffs.push(path);
    Ok(())
}

/// Runs work that waits for the disk beside the other tasks.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // A panic must not end as if the work were done.
        Err(died) => std::panic::resume_unwind(died.into_panic()),
    }
}

/// SHA-256 of a file's bytes, in hex. Follows no link.
pub(super) fn digest(path: &Path) -> io::Result<String> {
    use sha2::{Digest, Sha256};
    if !path.symlink_metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut HashWriter(&mut hash))?;
    Ok(tapwave_core::shown::hex(&hash.finalize()))
}

struct HashWriter<'a>(&'a mut sha2::Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sha2::Digest::update(self.0, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
