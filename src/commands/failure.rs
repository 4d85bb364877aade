//! Promises that every error ends as a sentence, what to do about it, and an exit code.

use std::error::Error;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::typed::{self, CommandLine, RunCommands};
use crate::config::{FoundSettings, SecretError, SettingsError};
use crate::output::{ErrorMessage, OpenFailure, count};
use tapwave_core::exit::Exit;
use tapwave_core::limits;
use tapwave_core::shown::shell_word;
use tapwave_graph::GraphError;
use tapwave_graph::http::NetworkError;
use tapwave_graph::sign_in::AuthError;
use tapwave_graph::sign_in::permissions::Need;
use tapwave_graph::verdict::RefusalKind;
use tapwave_ledger::{ClaimsError, FolderError, LedgerError, Registry, RegistryError, RunFolder};
use tapwave_pipeline::check::CheckError;
use tapwave_pipeline::policy::PolicyError;
use tapwave_pipeline::run::StatusError;
use tapwave_pipeline::run::cleanup::CleanupError;
use tapwave_pipeline::run::delivering::ReaddressError;
use tapwave_pipeline::run::intake::IntakeError;
use tapwave_pipeline::run::issuing::IssuingError;
use tapwave_pipeline::seal::{BookError, HandoverError};
use tapwave_pipeline::worker::RunError;
use tapwave_seal::BadIdentity;

/// Why a command ended before its end.
#[derive(Debug)]
pub struct Failure {
    /// The code that scripts see.
    pub exit: Exit,
    /// The words that people see.
    pub message: ErrorMessage,
    /// A command that mends it, to be told with the options that it needs.
    advice: Option<Advice>,
}

/// A command, and what it does.
#[derive(Debug)]
enum Advice {
    /// Over no run.
    Tenant { command: &'static str, does: &'static str },
    /// Of the run in this folder.
    Run { folder: PathBuf, command: fn(&RunCommands) -> String, does: &'static str },
}

const ACCESS_HINT: &str = "check --tenant, --client-id, --auth and whether the secret or token has expired; the sign-in log in Entra says more";
const SIGN_IN_OUTAGE_HINT: &str =
    "check the network, the proxy, --tenant and --authority-url, or try again later";
const ENABLE: Advice = Advice::Tenant {
    command: "policy enable",
    does: "turns it on, or Entra → Authentication methods → Temporary Access Pass",
};
const INCLUDE: Advice = Advice::Tenant {
    command: "policy include GROUP",
    does: "adds one, or Entra → Authentication methods → Temporary Access Pass",
};
const SHOW: Advice = Advice::Tenant { command: "policy show", does: "looks again" };
/// Opens what should be a file. Windows says of a folder no more than that access is denied.
pub(super) fn plain_file(path: &Path) -> io::Result<File> {
    if path.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
    }
    File::open(path)
}

/// What a wave is, for whoever gave none.
pub(super) const WAVE: &str = "the wave's CSV file";
const POLICY_HINT: &str = "the permission Policy.ReadWrite.AuthenticationMethod is missing, or (delegated) your account lacks the role Authentication Policy Administrator";
const FORBIDDEN_HINT: &str = "a permission is missing, or (delegated) your account lacks the role Authentication Administrator";
const NEVER_REACHED_HINT: &str =
    "if it was never reached from here, check the network, the proxy and --graph-url";
const UNREACHED_HINT: &str =
    "check the network, the proxy and --graph-url, or try again when Graph is back";

impl Failure {
    /// A failure with its hints.
    pub(super) fn new(exit: Exit, what: impl std::fmt::Display, hints: &[&str]) -> Self {
        let hints = hints.iter().map(ToString::to_string).collect();
        Self { exit, message: ErrorMessage { what: what.to_string(), hints }, advice: None }
    }

    /// A failure that a command mends.
    fn mended_by(exit: Exit, what: impl std::fmt::Display, command: Advice) -> Self {
        Self { advice: Some(command), ..Self::new(exit, what, &[]) }
    }

    /// Tells the command that mends it, as it is typed where these options were.
    pub(super) fn advise(mut self, line: &CommandLine, registry: Option<&Registry>) -> Self {
        let hint = match self.advice.take() {
            Some(Advice::Tenant { command, does }) => {
                Some(format!("tapwave {command}{} {does}", line.connection()))
            }
            Some(Advice::Run { folder, command, does }) => RunFolder::open(&folder)
                .map(|folder| {
                    format!("{} {does}", command(&RunCommands::new(&folder, registry, line)))
                })
                .ok(),
            None => None,
        };
        self.message.hints.extend(hint);
        self
    }

    /// A file or folder that cannot be read. `what` it should be is told with an article, such
    /// as `the wave's CSV file`.
    pub(super) fn unread(path: &Path, error: &io::Error, what: &str) -> Self {
        let failure = format!("failed to open {}: {error}", path.display());
        let hint = match error.kind() {
            io::ErrorKind::NotFound => {
                let place = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
                format!("nothing is at {}; give the path of {what}", place.display())
            }
            io::ErrorKind::PermissionDenied => {
                format!("your account may not read it; change that, or give the path of {what}")
            }
            _ => format!("give the path of {what}"),
        };
        Self::new(Exit::Usage, failure, &[&hint])
    }

    /// A file or folder that cannot be made or written.
    pub(super) fn unwritten(doing: &str, path: &Path, error: &io::Error) -> Self {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "make the folder it is to lie in, or name another place",
            io::ErrorKind::StorageFull => "free space on that disk, or name another place",
            _ => "name another place that your account may write to",
        };
        let failure = format!("failed to {doing} {}: {error}", path.display());
        Self::new(Exit::Usage, failure, &[hint])
    }

    /// A file that would be overwritten.
    pub(super) fn there_already(writing: &str, path: &Path, flag: &str) -> Self {
        let what = format!("failed to write {writing} to {}: it is there already", path.display());
        Self::new(Exit::Usage, what, &[&format!("name a new file with {flag}")])
    }

    /// Permissions that the token lacks, the least that suffices named.
    pub(super) fn permissions(lacking: &[Need], kind: &str) -> Self {
        let names = names_of(lacking);
        let what = format!("the {kind} token lacks {}", names.join(", "));
        let hint = format!(
            "grant {} of Microsoft Graph and give admin consent: {}",
            match names.len() {
                1 => format!("this {kind} permission"),
                _ => format!("these {kind} permissions"),
            },
            names.join(", ")
        );
        Self::new(Exit::Access, what, &[&hint])
    }

    /// A person none of whose active roles lets passes be made.
    pub(super) fn no_active_role() -> Self {
        let hints = [
            "activate it in Privileged Identity Management if you are eligible for it, or have it assigned, then sign in again",
            "a role over an administrative unit alone is not in the token: with such a one, --yes goes on",
        ];
        Self::new(Exit::Access, NO_ACTIVE_ROLE, &hints)
    }

    /// A person's `az login` token, which carries the Azure CLI's own scopes.
    pub(super) fn azure_cli_user(lacking: &[Need]) -> Self {
        let names: Vec<&str> = lacking.iter().map(|need| need.least()).collect();
        let what = format!(
            "the token of a person signed in to the Azure CLI cannot carry {}",
            names.join(", ")
        );
        let hints = [
            "sign in to the Azure CLI as a service principal: az login --service-principal",
            "or sign in here as a person: --auth interactive, or --auth device-code",
        ];
        Self::new(Exit::Access, what, &hints)
    }

    pub(super) fn other_graph(url: &str) -> Self {
        let what = format!("this run was made against {url}");
        Self::new(Exit::Usage, what, &["leave --graph-url and --cloud out, or name the same"])
    }

    /// `url` is what only a ledger says.
    pub(super) fn unnamed_graph(url: &str) -> Self {
        let what = format!(
            "this run's ledger says that Microsoft Graph is at {url}, which is none of Microsoft's clouds; a token goes there only if you name it now"
        );
        let hint =
            format!("add --graph-url {}, if that is the place you mean", shell_word(url, "URL"));
        Self::new(Exit::Usage, what, &[&hint])
    }

    /// A settings file that nobody named and nobody has trusted.
    pub(super) fn untrusted(found: &FoundSettings) -> Self {
        let path = found.path.display();
        let what = format!(
            "{path} was found here, was not named, and decides whom to trust; nothing was done"
        );
        let steers = found.steers.iter().map(|one| format!("it says: {one}"));
        let ways = [
            "tapwave settings --trust, in this folder, trusts it as it is now",
            "--config tapwave.toml names it for one command",
        ];
        let hints: Vec<String> = steers.chain(ways.map(str::to_owned)).collect();
        let hints: Vec<&str> = hints.iter().map(String::as_str).collect();
        Self::new(Exit::Usage, what, &hints)
    }

    pub(super) fn other_tenant(now: &str, then: &str) -> Self {
        let what = format!("you are signed in to tenant {now}, but this run belongs to {then}");
        Self::new(Exit::Access, what, &["sign in to the run's own tenant"])
    }

    /// A run from elsewhere whose rows name other people than those whom they would act on.
    pub(super) fn other_people(rows: &[String], cleanup: &str) -> Self {
        let shown: Vec<&str> =
            rows.iter().take(limits::PROBLEMS_SHOWN).map(String::as_str).collect();
        let more = rows.len().saturating_sub(shown.len());
        let what = format!(
            "in this tenant the ids of {} are not those of the people whom the run names, as if \
             somebody had changed the ledger, or renamed them: {}{}; nothing was done",
            count(rows.len() as u64, "row", "rows"),
            shown.join("; "),
            if more > 0 { format!("; and {more} more") } else { String::new() }
        );
        let cleanup = format!("{cleanup} removes what the people of the wave hold, by their names");
        Self::new(Exit::Usage, what, &["work on the machine that made the run", &cleanup])
    }

    /// A run from elsewhere whose rows would be mailed to others than its options name.
    pub(super) fn other_readers(rows: &[String]) -> Self {
        let shown: Vec<&str> =
            rows.iter().take(limits::PROBLEMS_SHOWN).map(String::as_str).collect();
        let more = rows.len().saturating_sub(shown.len());
        let what = format!(
            "{} would be mailed to somebody whom this run's --to and --notice-to do not name, as if \
             somebody had changed the ledger: {}{}; nothing was done",
            count(rows.len() as u64, "row", "rows"),
            shown.join("; "),
            if more > 0 { format!("; and {more} more") } else { String::new() }
        );
        Self::new(Exit::Usage, what, &["work on the machine that made the run"])
    }

    /// A cleanup that had to stop. `go_on` is what carries on with it: a run that cleanup has
    /// closed is not resumed.
    pub(super) fn cleanup_failed(error: CleanupError, go_on: &str) -> Self {
        match error {
            CleanupError::Run(error) => Self::of_run_error(error, go_on),
            CleanupError::Ledger(error) => Self::unkept(error, go_on),
            CleanupError::Intake(error) => error.into(),
            CleanupError::Handoff { .. } => Self::new(Exit::CleanupIncomplete, error, &[]),
        }
    }

    /// Work that had to stop. `go_on` is what carries on with it.
    pub(super) fn of_run_error(error: RunError, go_on: &str) -> Self {
        match error {
            RunError::SignIn { .. } => Self::new(Exit::Access, error, &[ACCESS_HINT]),
            RunError::Outage { .. } => Self::new(Exit::Outage, error, &[&outlasting(go_on)]),
            RunError::Between { .. } => {
                let hint = format!("once that is mended, {go_on} carries on");
                Self::new(Exit::Access, error, &[&hint])
            }
            RunError::EqualRefusals { kind, .. } => {
                let (exit, hint) = of_everybody(kind);
                let go_on = format!(
                    "once that is mended, {go_on} carries on; with --keep-going it asks for the \
                     others all the same"
                );
                Self::new(exit, error, &[hint, &go_on])
            }
            RunError::Graph(error) => error.into(),
            RunError::Ledger(error) => Self::unkept(error, go_on),
            RunError::Seal { .. } => {
                let hint = format!("mend what is named, then {go_on} carries on");
                Self::new(Exit::Unexpected, error, &[&hint])
            }
        }
    }

    /// A ledger that could not be used in the midst of work.
    fn unkept(error: LedgerError, go_on: &str) -> Self {
        let is_mended_by_others = matches!(error, LedgerError::Write(_) | LedgerError::Read { .. });
        let mut failure = Self::from(error);
        if is_mended_by_others {
            failure.message.hints.push(format!("once that is mended, {go_on} carries on"));
        }
        failure
    }

    /// This failure to begin a run, where another is in the folder.
    fn of_a_run_there(self, folder: PathBuf) -> Self {
        let does = "carries on with the run that is there";
        Self { advice: Some(Advice::Run { folder, command: RunCommands::resume, does }), ..self }
    }

    pub(super) fn nobody_to_ask(question: &str) -> Self {
        let what = format!("{question}, and there is no terminal to ask on");
        Self::new(Exit::Usage, what, &["say yes beforehand with --yes"])
    }
}

/// What is said of a person who could make no pass.
pub(super) const NO_ACTIVE_ROLE: &str = "your account has no active role that lets it issue or remove passes: Authentication Administrator (Privileged Authentication Administrator, if people in the wave hold admin roles); a role that you are eligible for is not active";

/// The permissions to ask for; one that another of the list brings along is not asked for by itself.
pub(super) fn names_of(needs: &[Need]) -> Vec<&'static str> {
    let brought = |need: &Need| {
        let mut others = needs.iter().filter(|other| *other != need);
        others.any(|other| need.sufficient().contains(&other.least()))
    };
    needs.iter().filter(|need| !brought(need)).map(|need| need.least()).collect()
}

/// Whose matter it is that one row after the other is refused a pass.
const fn of_everybody(kind: RefusalKind) -> (Exit, &'static str) {
    match kind {
        RefusalKind::Forbidden => (Exit::Access, FORBIDDEN_HINT),
        RefusalKind::Licence => (Exit::RowsFailed, "the tenant needs Microsoft Entra ID P1"),
        _ => (
            Exit::RowsFailed,
            "tapwave policy show tells what the policy allows now, and tapwave check what is \
             wrong with the rows",
        ),
    }
}

fn outlasting(go_on: &str) -> String {
    format!("nothing is lost: {go_on} carries on when Graph is back")
}

/// An error and all its causes in one line, each cause once.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

macro_rules! usage {
    ($($error:ty => $hints:expr),* $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(Exit::Usage, chain(&error), &$hints)
            }
        }
    )*};
}

usage! {
    RegistryError => [],
    ClaimsError => [],
    BookError => ["tapwave keygen makes an identity and shows its public key, age1…"],
    BadIdentity => [],
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        let hints: &[&str] = match &error {
            SettingsError::Unreadable { .. } => &[
                "check the path and that your account may read it; without --config, tapwave.toml in this folder is read if it is there",
            ],
            SettingsError::NotOurs { .. } if cfg!(windows) => &[
                "take the right to write from them (Properties, Security), or copy it into a folder of your own",
            ],
            SettingsError::NotOurs { path, .. } => {
                let file = typed::file(path);
                let hint = format!(
                    "chown \"$USER\" {file} && chmod go-w {file} makes it yours alone, if you know what it says"
                );
                return Self::new(Exit::Usage, chain(&error), &[&hint]);
            }
            SettingsError::File { .. } => {
                &["correct that line; samples/tapwave.toml has every key with a comment"]
            }
            SettingsError::Secret(SecretError::File { .. }) => {
                &["check the path in tapwave.toml and that your account may read the file"]
            }
            _ => &[],
        };
        Self::new(Exit::Usage, chain(&error), hints)
    }
}

impl From<NetworkError> for Failure {
    fn from(error: NetworkError) -> Self {
        let hints: &[&str] = match &error {
            NetworkError::CaFile { .. } => &[
                "give a PEM file of certificates that your account may read, with --ca-file or ca_file in tapwave.toml",
            ],
            _ => &[],
        };
        Self::new(Exit::Usage, chain(&error), hints)
    }
}

impl From<OpenFailure> for Failure {
    fn from(error: OpenFailure) -> Self {
        match &error {
            OpenFailure::Output { path, source } => Self::unwritten("write", path, source),
            _ => Self::new(Exit::Usage, chain(&error), &[]),
        }
    }
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        let (exit, hint) = match error {
            AuthError::Settings { .. } => (Exit::Usage, ACCESS_HINT),
            AuthError::SignIn { .. } => (Exit::Access, ACCESS_HINT),
            AuthError::Between { .. } => return Self::new(Exit::Access, error, &[]),
            AuthError::Outage { .. } => (Exit::Outage, SIGN_IN_OUTAGE_HINT),
        };
        Self::new(exit, error, &[hint])
    }
}

impl From<GraphError> for Failure {
    fn from(error: GraphError) -> Self {
        let (exit, hint) = match &error {
            GraphError::SignIn { .. } => (Exit::Access, ACCESS_HINT),
            GraphError::Between { .. } => return Self::new(Exit::Access, error, &[]),
            GraphError::Refused { refusal, .. } if refusal.status == 403 => {
                (Exit::Access, FORBIDDEN_HINT)
            }
            GraphError::Outage { .. } => (Exit::Outage, UNREACHED_HINT),
            GraphError::ForeignLink { .. } => (
                Exit::Unexpected,
                "the token was not sent there; a proxy may rewrite answers, or --graph-url names another host than the tenant's",
            ),
            GraphError::Refused { .. } | GraphError::Shape { .. } | GraphError::Endless => {
                (Exit::Unexpected, "run again with -vv for each call's request id")
            }
        };
        Self::new(exit, error, &[hint])
    }
}

impl From<FolderError> for Failure {
    fn from(error: FolderError) -> Self {
        let failure = Self::new(Exit::Usage, chain(&error), &[]);
        match error {
            FolderError::HoldsRun(folder) => failure.of_a_run_there(folder),
            _ => failure,
        }
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        let exit = match &error {
            LedgerError::Write(_)
            | LedgerError::Shut
            | LedgerError::Illegal { .. }
            | LedgerError::NeedsIntent { .. }
            | LedgerError::OtherUser(_)
            | LedgerError::UnknownLine(_)
            | LedgerError::ScratchOnly => Exit::Unexpected,
            LedgerError::PurgeHindered(_) => Exit::CleanupIncomplete,
            _ => Exit::Usage,
        };
        let failure = Self::new(exit, chain(&error), &[]);
        match error {
            LedgerError::Folder(error) => error.into(),
            LedgerError::PurgeHindered(ledger) => {
                let folder = ledger.parent().map_or_else(PathBuf::new, Path::to_owned);
                let does = "goes on where it stopped";
                let advice = Advice::Run { folder, command: RunCommands::cleanup, does };
                Self { advice: Some(advice), ..failure }
            }
            _ => failure,
        }
    }
}

impl From<CheckError> for Failure {
    fn from(error: CheckError) -> Self {
        let hint = match &error {
            CheckError::Graph(_) => {
                let CheckError::Graph(graph) = error else { unreachable!("matched above") };
                return graph.into();
            }
            CheckError::PolicyDisabled => {
                return Self::mended_by(Exit::Problems, &error, ENABLE);
            }
            CheckError::NobodyIncluded | CheckError::OnlyMissingGroups { .. } => {
                return Self::mended_by(Exit::Problems, &error, INCLUDE);
            }
            CheckError::GroupsUnreadable => {
                return Self::permissions(&[Need::ReadGroups], "access");
            }
            CheckError::NoSuchGroup { .. } => {
                "give its display name as Entra shows it, or its object id"
            }
            CheckError::AmbiguousGroup { .. } => "Entra shows the object id on the group's page",
            CheckError::TooManyGroups => "nest the groups in one, and name that",
        };
        Self::new(Exit::Problems, error.to_string(), &[hint])
    }
}

impl From<IntakeError> for Failure {
    fn from(error: IntakeError) -> Self {
        match error {
            IntakeError::Ledger(error) => error.into(),
            IntakeError::Check(CheckError::Graph(error @ GraphError::Outage { .. })) => Self::new(
                Exit::Outage,
                error,
                &["nothing was issued; try again when Graph is back", NEVER_REACHED_HINT],
            ),
            IntakeError::Check(error) => error.into(),
            IntakeError::Book(error) => error.into(),
            IntakeError::Open { path, source } => Self::unread(&path, &source, WAVE),
            IntakeError::Rejects { path, source } => {
                Self::unwritten("write the rejected rows to", &path, &source)
            }
            IntakeError::Claims(error) => error.into(),
            IntakeError::Claimed { .. } => Self::new(Exit::Problems, error, &[]),
            IntakeError::Interrupted => Self::new(Exit::Interrupted, error, &[]),
            other @ IntakeError::Wave { .. } => Self::new(Exit::Usage, chain(&other), &[]),
        }
    }
}

/// What stopped work on a run. What to do about it names the run that is meant, so it becomes a
/// [`Failure`] only together with it.
pub(super) trait OfRun: Sized {
    /// The failure of a command that works on this run.
    fn of(self, run: &RunCommands) -> Failure;
}

impl OfRun for RunError {
    fn of(self, run: &RunCommands) -> Failure {
        Failure::of_run_error(self, &run.resume())
    }
}

impl OfRun for ReaddressError {
    fn of(self, run: &RunCommands) -> Failure {
        match self {
            Self::Ledger(error) => error.into(),
            Self::Twice(_) | Self::Damaged { .. } => Failure::new(Exit::Usage, self, &[]),
            Self::NoRow(_) | Self::NoMail { .. } => {
                let hint = format!("{} shows every row and how far it is", run.status());
                Failure::new(Exit::Usage, self, &[&hint])
            }
        }
    }
}

impl OfRun for HandoverError {
    fn of(self, run: &RunCommands) -> Failure {
        let hint =
            format!("every pass is safe in the ledger; {} lays them down again", run.resume());
        Failure::new(Exit::Unexpected, chain(&self), &[&hint])
    }
}

impl OfRun for IssuingError {
    fn of(self, run: &RunCommands) -> Failure {
        match self {
            Self::Ledger(error) => Failure::unkept(error, &run.resume()),
            // What was issued before this resume is safe, and what was not is checked anew.
            Self::Intake(IntakeError::Check(CheckError::Graph(
                error @ GraphError::Outage { .. },
            ))) => Failure::new(Exit::Outage, error, &[&outlasting(&run.resume())]),
            Self::Intake(error) => error.into(),
            Self::Book(error) => error.into(),
            Self::Run(error) => error.of(run),
            Self::Handover(error) => error.of(run),
            Self::Closed => {
                let hint = format!(
                    "{} goes on with the cleanup; a new run issues new passes",
                    run.cleanup()
                );
                Failure::new(Exit::Usage, self, &[&hint])
            }
        }
    }
}

impl From<PolicyError> for Failure {
    fn from(error: PolicyError) -> Self {
        match error {
            PolicyError::Value { .. }
            | PolicyError::Order { .. }
            | PolicyError::Everyone
            | PolicyError::ExcludeAll => Self::new(Exit::Usage, error, &[]),
            PolicyError::Group(error) => error.into(),
            PolicyError::Graph(GraphError::Refused { ref refusal, .. })
                if refusal.status == 403 =>
            {
                Self::new(Exit::Access, error, &[POLICY_HINT])
            }
            PolicyError::Graph(error) => error.into(),
            PolicyError::NotTaken { .. } => Self::mended_by(Exit::Unexpected, error, SHOW),
        }
    }
}

impl From<StatusError<io::Error>> for Failure {
    fn from(error: StatusError<io::Error>) -> Self {
        match error {
            StatusError::Ledger(error) => error.into(),
            StatusError::Graph(error) => error.into(),
            StatusError::Stopped(error) => error.into(),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(Exit::Unexpected, format!("failed to write to stdout: {error}"), &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cleanup_that_could_not_end_is_told_as_one() {
        let why = "no answer in time".to_owned();
        let outage =
            Failure::cleanup_failed(GraphError::Outage { why }.into(), "tapwave cleanup wave");
        assert_eq!(outage.exit, Exit::Outage);
        assert!(!outage.message.hints[0].contains("resume"), "a closed run is not resumed");
        let hindered = LedgerError::PurgeHindered("ledger.db".into());
        let hindered =
            Failure::cleanup_failed(CleanupError::from(hindered), "tapwave cleanup wave");
        assert_eq!(hindered.exit, Exit::CleanupIncomplete);
    }

    #[test]
    fn a_defect_is_not_blamed_on_the_command_line() {
        assert_eq!(Failure::from(LedgerError::ScratchOnly).exit, Exit::Unexpected);
    }

    #[test]
    fn what_carries_on_is_told_with_the_options_of_this_command() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = RunFolder::open(place.path()).expect("a folder");
        let line = CommandLine::of(&[
            "tapwave",
            "resume",
            "wave",
            "--config",
            "my.toml",
            "--tenant",
            "contoso.example",
        ]);
        let run = RunCommands::new(&folder, None, &line);
        let ledger = folder.path().join("ledger.db");
        let path = || folder.path().to_owned();
        for (error, command) in [
            (LedgerError::Folder(FolderError::HoldsRun(path())), run.resume()),
            (LedgerError::PurgeHindered(ledger), run.cleanup()),
        ] {
            assert!(command.ends_with(" --config my.toml --tenant contoso.example"), "{command}");
            let failure = Failure::from(error).advise(&line, None).message;
            assert_eq!(failure.hints.len(), 1, "{failure:?}");
            assert!(failure.hints[0].starts_with(&format!("{command} ")), "{failure:?}");
        }
    }

    #[test]
    fn an_outage_says_what_is_lost_and_how_to_go_on() {
        let out = || {
            let why = "no answer in time".to_owned();
            IntakeError::Check(CheckError::Graph(GraphError::Outage { why }))
        };
        let place = tempfile::tempdir().expect("a folder");
        let folder = RunFolder::open(place.path()).expect("a folder");
        let run = RunCommands::new(&folder, None, &CommandLine::of(&["tapwave", "resume", "wave"]));
        let (new, resumed) = (Failure::from(out()), IssuingError::Intake(out()).of(&run));
        assert_eq!((new.exit, resumed.exit), (Exit::Outage, Exit::Outage));
        assert!(new.message.hints[0].contains("nothing was issued"));
        let hint = &resumed.message.hints[0];
        assert!(hint.contains(&run.resume()), "passes were issued before: {hint}");
    }
}
