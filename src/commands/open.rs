//! `open` and `keygen`: the recipient's side, which needs no tenant and no settings; also
//! the completions and the manual page.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::CommandFactory;
use secrecy::ExposeSecret;

use super::failure::plain_file;
use super::{Failure, World, typed};
use crate::args::{Cli, KeygenArgs, OpenArgs, OpenFormat};
use crate::output::{Doubled, OpenFailure, OpenLayout, Opened, Opening, count, shown};
use tapwave_core::exit::Exit;
use tapwave_core::ids::{Line, Upn};
use tapwave_core::limits;
use tapwave_ledger::{
    Access, Ledger, RecipientRecord, RegistryError, Standing, State, create_private,
};
use tapwave_seal::{Identities, OpenError, Prompts, keygen as new_identity};

/// Rows whose sealed copy is in the ledger until it is purged.
const READABLE: [Standing; 4] =
    [Standing::Sealed, Standing::Mailing, Standing::Delivered, Standing::Removed];

/// What an identity file is, for whoever gave none.
const IDENTITY: &str = "the identity file that tapwave keygen or age-keygen wrote";

/// What can be opened, for whoever gave what is not there.
const HANDOFF: &str =
    "the handoff file, the folder it is in, or a run's name as tapwave runs lists it";

/// What one argument means.
enum OpenTarget {
    /// An age file or a container.
    File(PathBuf),
    Run(Ledger),
}

pub(super) async fn open(args: &OpenArgs, world: &World) -> Result<Exit, Failure> {
    let identities = identities(&args.identities, world)?;
    let only = args.user.as_deref().map(wanted_user).transpose()?;
    let output = args.output.as_deref();
    let mut opening =
        Opening::begin(shape(args.format, world), only.clone(), output, world.stop.clone())?;
    // Before anything is printed: a name that was mistyped must not follow half a table.
    let mut sources = Vec::new();
    for what in &args.what {
        sources.extend(sources_of(what, world).await?);
    }
    if sources.len() > 1 {
        opening = opening.merging();
    }
    // Told after everything else that can be shown.
    let mut incomplete = None;
    for source in &sources {
        match source {
            OpenTarget::File(path) => file(path, &mut opening, &identities)?,
            OpenTarget::Run(ledger) => {
                let lacks = run(ledger, &mut opening, &identities, world).await?;
                incomplete = incomplete.or(lacks);
            }
        }
    }
    let Opened { rows, doubled } = opening.finish()?;
    if let Some(failure) = incomplete {
        return Err(failure);
    }
    if let Some(Doubled { first, people }) = doubled {
        let who = count(people, "person has", "people have");
        world.report.warn(format_args!(
            "{who} more than one pass here ({first} is the first): of each, the one issued last is the one that works"
        ));
    }
    if let Some(path) = output {
        let rows = count(rows, "pass", "passes");
        world.report.info(format_args!("{rows} written to {}, for you alone", path.display()));
    }
    match only {
        Some(upn) if rows == 0 => {
            let what = format!("there is no pass for {upn} that this identity opens");
            let see = match &sources[..] {
                [OpenTarget::Run(ledger)] => world.typed(ledger.folder()).status(),
                _ => typed::open_files(&args.what, &args.identities),
            };
            Err(Failure::new(Exit::Usage, what, &[&format!("{see} shows every row")]))
        }
        _ => Ok(Exit::Done),
    }
}

/// What an argument names: a file, a run, or a folder with files.
async fn sources_of(what: &str, world: &World) -> Result<Vec<OpenTarget>, Failure> {
    let path = Path::new(what);
    if path.is_file() {
        return Ok(vec![OpenTarget::File(path.to_owned())]);
    }
    let folder = world.registry()?.locate(what).map_err(|error| match error {
        RegistryError::NothingThere(_) => {
            // In the system's own words, if it still has them.
            let gone = path.metadata().err().unwrap_or_else(|| io::ErrorKind::NotFound.into());
            Failure::unread(path, &gone, HANDOFF)
        }
        found => found.into(),
    })?;
    if !folder.holds_run() {
        // By the name that was typed where that leads there, since errors tell it.
        let folder = if path.is_dir() { path } else { folder.path() };
        let files = files_in(folder)?;
        if !files.is_empty() {
            return Ok(files.into_iter().map(OpenTarget::File).collect());
        }
    }
    let ledger = Ledger::open(&folder, Access::Read, world.clock.clone()).await?;
    Ok(vec![OpenTarget::Run(ledger)])
}

/// The age files and containers of a folder, by name. What of that name is no file is an error
/// when its turn comes.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let unread = |error: io::Error| Failure::unread(folder, &error, "a folder of handoff files");
    let mut files = Vec::new();
    for entry in folder.read_dir().map_err(unread)? {
        let path = entry.map_err(unread)?.path();
        let extension = path.extension().map(|it| it.to_string_lossy().to_lowercase());
        if extension.is_some_and(|it| it == "age" || it == "tar") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// `--json` promises JSON from every command; a format that was named wins.
fn shape(format: OpenFormat, world: &World) -> OpenLayout {
    match format {
        OpenFormat::Table if world.report.is_json() => OpenFormat::Json.into(),
        named => named.into(),
    }
}

fn wanted_user(text: &str) -> Result<Upn, Failure> {
    text.parse().map_err(|bad| {
        let what = format!("--user {}: the userPrincipalName {bad}", shown(text));
        Failure::new(Exit::Usage, what, &["write it as the wave does, like name@contoso.com"])
    })
}

fn file(path: &Path, opening: &mut Opening, identities: &Identities) -> Result<(), Failure> {
    let unread = |error| Failure::unread(path, &error, "the handoff file");
    // A pipe would be waited for, and a folder is not read.
    if !path.metadata().map_err(unread)?.is_file() {
        return Err(unread(io::Error::other("it is no file")));
    }
    Ok(opening.file(path, File::open(path).map_err(unread)?, identities)?)
}

/// Every sealed row of a run that the identities open. A row for somebody else is passed
/// over; that all of them are is an error. One that nobody has vouched for is not shown, as it
/// is in no handoff: its pass may be dead.
async fn run(
    ledger: &Ledger,
    opening: &mut Opening,
    identities: &Identities,
    world: &World,
) -> Result<Option<Failure>, Failure> {
    if ledger.purged().await?.is_some() {
        let what = "the sealed copies of this run were purged by its cleanup";
        return Err(Failure::new(
            Exit::Usage,
            what,
            &["its passes are removed; nothing is left to read"],
        ));
    }
    let (mut sealed, mut closed, mut unproven) = (0_u64, 0_u64, 0_u64);
    let mut missing: Option<(Line, u64)> = None;
    let mut pages = ledger.pages(&READABLE, limits::ROWS_PER_READ);
    while let Some(rows) = pages.next().await? {
        for row in rows {
            if matches!(row.state, State::Sealed { proven: false, .. }) {
                unproven += 1;
                continue;
            }
            let Some(bytes) = ledger.ciphertext(row.line).await? else {
                if row.state.standing() != Standing::Removed {
                    missing.get_or_insert((row.line, 0)).1 += 1;
                }
                continue;
            };
            sealed += 1;
            let name = PathBuf::from(format!("{} line {}", ledger.folder().name(), row.line));
            match opening.file(&name, &bytes[..], identities) {
                Ok(()) => {}
                Err(OpenFailure::Open { source: OpenError::NoMatch, .. }) => closed += 1,
                Err(other) => return Err(other.into()),
            }
        }
    }
    if unproven > 0 {
        world.report.error(format_args!(
            "{} not shown: the run broke off, and nobody has looked since what stands on the user; {} does",
            count(unproven, "pass is", "passes are"),
            world.typed(ledger.folder()).resume()
        ));
    }
    if let Some((first, copies)) = missing {
        let copies = count(copies, "sealed copy is", "sealed copies are");
        let lacks = ledger.damaged(format!("{copies} not there, first that of row {first}"));
        return Ok(Some(lacks.into()));
    }
    if sealed > 0 && sealed == closed {
        let to: Vec<String> =
            ledger.about().recipients.iter().map(RecipientRecord::readers).collect();
        let what = format!(
            "none of the run's passes is sealed to this identity: they are sealed to {}",
            to.join("; ")
        );
        let status = world.typed(ledger.folder()).status();
        let hint = format!("{status} --json names each row's recipient");
        return Err(Failure::new(Exit::Usage, what, &[&hint]));
    }
    if sealed + unproven == 0 {
        let status = world.typed(ledger.folder()).status();
        world.report.info(format_args!("no pass of this run is sealed; {status} shows every row"));
    }
    Ok(None)
}

pub(super) fn identities(paths: &[PathBuf], world: &World) -> Result<Identities, Failure> {
    let prompts: Arc<dyn Prompts> = Arc::new(world.prompts.clone());
    let mut identities = Identities::new();
    for path in paths {
        if path.as_os_str() == "-" {
            identities.add_file("stdin", io::stdin().lock(), &prompts)?;
            continue;
        }
        let file = plain_file(path).map_err(|error| Failure::unread(path, &error, IDENTITY))?;
        identities.add_file(&path.display().to_string(), file, &prompts)?;
    }
    Ok(identities)
}

pub(super) fn keygen(args: &KeygenArgs, world: &World) -> Result<Exit, Failure> {
    let identity = new_identity(world.clock.now());
    let text = identity.file.expose_secret().as_bytes();
    match &args.output {
        None => io::stdout().lock().write_all(text)?,
        Some(path) => {
            let written = create_private(path).and_then(|mut file| {
                file.write_all(text)?;
                file.sync_all()
            });
            written.map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => Failure::there_already("the identity", path, "-o"),
                _ => Failure::unwritten("write", path, &error),
            })?;
            world.report.info(format_args!("identity: {} (keep it secret)", path.display()));
        }
    }
    world.report.info(format_args!("public key: {}", identity.recipient));
    Ok(Exit::Done)
}

pub(super) fn completions(shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tapwave", &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(Exit::Done)
}

pub(super) fn man() -> Result<Exit, Failure> {
    clap_mangen::Man::new(Cli::command()).render(&mut io::stdout().lock())?;
    Ok(Exit::Done)
}
