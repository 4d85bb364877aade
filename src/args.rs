//! Promises the command line: flags, their help, and nothing else.
//!
//! Values are kept as typed; `settings` joins them with the environment and tapwave.toml and
//! decides what they mean. No secret is ever taken from the command line.

#![expect(clippy::doc_markdown, reason = "these texts are the help that people read")]

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use tapwave_core::clock::Minutes;
use tapwave_core::limits;

/// Temporary Access Passes for a whole enrolment wave: nothing in plaintext on disk, nothing
/// issued twice, nothing left behind
#[derive(Debug, Parser)]
#[command(name = "tapwave", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "\
Try it without an account:  tapwave rehearse samples/wave.csv

Exit codes: 0 all done · 1 unexpected · 2 usage · 3 check found problems, nothing was changed ·
4 some rows failed · 5 sign-in or permission · 6 gave up on throttling or an outage ·
7 delivery incomplete · 8 cleanup incomplete · 130 interrupted, resume later")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What every command takes.
    #[command(flatten)]
    pub common: Common,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Is everything ready? Changes nothing
    Check(CheckArgs),
    /// Check, issue and seal a pass for every row, into a run folder
    Run(RunArgs),
    /// Carry on after a crash, Ctrl-C or failed rows
    Resume(ResumeArgs),
    /// Mail what is sealed and not yet delivered
    Deliver(DeliverArgs),
    /// Where every row of a run stands
    Status(StatusArgs),
    /// The passes that an audit log should show for a run, as CSV or JSON
    Manifest(ManifestArgs),
    /// The runs on this machine, newest first
    Runs,
    /// The recipient's side: read the passes
    Open(OpenArgs),
    /// Remove every pass, prove it, purge the sealed copies
    Cleanup(CleanupArgs),
    /// Show or change the tenant's Temporary Access Pass policy
    Policy {
        /// What to do with it.
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Print the effective settings and where each came from
    Settings {
        /// Let tapwave.toml in this folder, as it is now, decide where to sign in, through what,
        /// who reads the passes and what mails them
        #[arg(long)]
        trust: bool,
    },
    /// The whole pipeline against a simulated tenant, no account needed
    Rehearse(RehearseArgs),
    /// Make an age identity, for people who don't have age
    Keygen(KeygenArgs),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// What every command takes.
#[derive(Debug, Clone, Default, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// Tenant id or domain [env: AZURE_TENANT_ID]
    #[arg(long, global = true, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// Which Microsoft cloud
    #[arg(long, global = true, value_enum)]
    pub cloud: Option<Cloud>,
    /// How to sign in [default: auto]
    #[arg(long, global = true, value_enum)]
    pub auth: Option<Auth>,
    /// The application's (client) id [env: AZURE_CLIENT_ID]
    #[arg(long, global = true, value_name = "ID")]
    pub client_id: Option<String>,
    /// Another Graph endpoint: https, or http to this machine
    #[arg(long, global = true, value_name = "URL")]
    pub graph_url: Option<String>,
    /// Another place to sign in, https [env: AZURE_AUTHORITY_HOST]
    #[arg(long, global = true, value_name = "URL")]
    pub authority_url: Option<String>,
    /// A PEM file of further certificate authorities
    #[arg(long, global = true, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// A proxy, instead of the system's
    #[arg(long, global = true, value_name = "URL")]
    pub proxy: Option<String>,
    /// Settings [default: tapwave.toml in this folder, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Most requests in flight at once; up to twenty look-ups or removals that share a call count
    /// as one, of which at most 8 go at once [default: 64]
    #[arg(long, global = true, value_name = "N")]
    pub max_in_flight: Option<usize>,
    /// Most requests per second of each kind [default: what the tenant bears]
    #[arg(long, global = true, value_name = "N")]
    pub max_rate: Option<f64>,
    /// How long a lost request may still take effect, such as 5m [default: the run's, else the
    /// settings', else 5m]
    #[arg(long, alias = "fence", global = true, value_name = "DURATION")]
    pub settle_after: Option<String>,
    /// One JSON object (or array) on stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// Write a log as JSON lines: method, path, status and ids of each call. A new file, or one
    /// of these logs to go on with
    #[arg(long, global = true, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Say only what went wrong
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more; twice: each call's method, path, status and request id
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// No progress bars
    #[arg(long, global = true)]
    pub no_progress: bool,
    /// Answer every question with yes
    #[arg(short, long, global = true)]
    pub yes: bool,
}

/// Microsoft's clouds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Cloud {
    /// The public cloud and GCC
    Global,
    /// US Government L4 (GCC High)
    Usgov,
    /// US Government L5 (DoD)
    UsgovDod,
    /// Named only to be refused with the reason: it has no passes
    #[value(hide = true)]
    China,
}

/// Ways to sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Auth {
    /// The first that is there: environment (token, secret, certificate), workload identity,
    /// managed identity, Azure CLI
    Auto,
    /// An app registration's secret, in AZURE_CLIENT_SECRET
    ClientSecret,
    /// An app registration's certificate, a PFX or PEM, in AZURE_CLIENT_CERTIFICATE_PATH
    ClientCertificate,
    /// A federated token, in AZURE_FEDERATED_TOKEN_FILE
    WorkloadIdentity,
    /// The identity of the Azure machine this runs on
    ManagedIdentity,
    /// Whoever is signed in to the Azure CLI (a service principal)
    AzureCli,
    /// In the browser of this machine, as an administrator
    Interactive,
    /// With a code, in the browser of any device, as an administrator
    DeviceCode,
    /// An access token, in TAPWAVE_ACCESS_TOKEN
    Token,
}

/// What `check` and `run` share: check tests exactly what run with the same flags needs.
#[derive(Debug, Clone, Default, Args)]
pub struct WaveArgs {
    /// Who may read the passes: an age public key, a plugin's, or a label of tapwave.toml
    #[arg(short, long = "recipient", value_name = "RECIPIENT")]
    pub recipients: Vec<String>,
    /// A file of recipients, one per line
    #[arg(short = 'R', long = "recipients-file", value_name = "FILE")]
    pub recipient_files: Vec<PathBuf>,
    /// Who may read every pass, whatever a row's recipient column says
    #[arg(long, value_name = "RECIPIENT")]
    pub break_glass: Vec<String>,
    /// Lifetime of rows that do not say: minutes, or such as 8h, 90m, 1d [default: the policy's]
    #[arg(long, value_name = "MINUTES")]
    pub lifetime: Option<Minutes>,
    /// Start of rows that do not say, such as 2027-03-01T08:00+01:00 [default: at once]
    #[arg(long, value_name = "TIME")]
    pub start: Option<String>,
    /// IANA time zone of starts without an offset, such as Europe/Berlin
    #[arg(long, value_name = "ZONE")]
    pub time_zone: Option<String>,
    /// Passes work once
    #[arg(long, conflicts_with = "multi_use")]
    pub one_time: bool,
    /// Passes work until they expire
    #[arg(long)]
    pub multi_use: bool,
    /// Every user must be in this group too
    #[arg(long = "group", value_name = "NAME|ID")]
    pub groups: Vec<String>,
    /// What to do about a live pass that is already there [default: fail]
    #[arg(long, value_enum)]
    pub existing: Option<ExistingArg>,
    /// Leave out rows with problems, and issue the others
    #[arg(long)]
    pub skip_ineligible: bool,
    /// Write rows with problems to this CSV, with a reason
    #[arg(long, value_name = "FILE")]
    pub rejects: Option<PathBuf>,
}

/// `--existing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExistingArg {
    /// The check refuses and names them
    Fail,
    /// Leave it alone and issue none
    Skip,
    /// Issue a new one in its place
    Replace,
}

/// How `check` and `run` mail the passes; the mail itself is set in tapwave.toml, `[mail]`.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Mail")]
pub struct MailArgs {
    /// Mail each pass as soon as it is sealed
    #[arg(long)]
    pub deliver: bool,
    /// Where the address comes from, the first that gives one: column:deliverTo, manager,
    /// other-mail, mail, or an address [default: column:deliverTo,manager]
    #[arg(long, value_name = "PLACE", value_delimiter = ',')]
    pub to: Vec<String>,
    /// Who is told, without the code, that a pass is ready and who has it, once that mail was
    /// taken: places as in --to
    #[arg(long, value_name = "PLACE", value_delimiter = ',')]
    pub notice_to: Vec<String>,
    /// What a mail carries [default: pass]
    #[arg(long, value_enum)]
    pub body: Option<BodyArg>,
    /// A folder of your own letter templates
    #[arg(long, value_name = "DIR")]
    pub template: Option<PathBuf>,
    /// Mail even if the last reader gets less than 30 usable minutes
    #[arg(long)]
    pub allow_late: bool,
    /// An identity that opens the sealed copies: issuing then need not wait for mail
    #[arg(short, long = "identity", value_name = "FILE", requires = "deliver")]
    pub identities: Vec<PathBuf>,
}

/// `--body`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BodyArg {
    /// The code itself
    Pass,
    /// The row's age file, attached; no code
    Sealed,
    /// The news that a pass is ready; no code
    Notice,
}

/// `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The wave: a CSV with a userPrincipalName column
    #[arg(value_name = "WAVE.csv", required_unless_present = "access")]
    pub wave: Option<PathBuf>,
    /// Without a wave: test sign-in, permissions and policy
    #[arg(long, conflicts_with = "wave")]
    pub access: bool,
    /// What to issue, and to whom.
    #[command(flatten)]
    pub want: WaveArgs,
    /// How to mail it.
    #[command(flatten)]
    pub mail: MailArgs,
    /// Print the letter of this line with a dummy code
    #[arg(long, value_name = "LINE", conflicts_with = "access")]
    pub preview: Option<u64>,
}

/// `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The wave: a CSV with a userPrincipalName column
    #[arg(value_name = "WAVE.csv")]
    pub wave: PathBuf,
    /// What to issue, and to whom.
    #[command(flatten)]
    pub want: WaveArgs,
    /// How to mail it.
    #[command(flatten)]
    pub mail: MailArgs,
    /// The run folder [default: a new one in the local data folder]
    #[arg(long = "run", value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Whether every sealed pass is looked at once more before the end; auto leaves it out
    /// where it would take longer than two minutes
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN")]
    pub final_look: FinalLookArg,
    /// Go on however many rows, or mails, in a row are refused for the same reason; without it, eight
    /// end the command
    #[arg(long)]
    pub keep_going: bool,
}

/// `--final-look`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FinalLookArg {
    /// However long it takes
    Always,
    /// Unless the tenant's rate draws it out longer than two minutes
    Auto,
    /// Not at all
    Never,
}

/// `resume`.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// A run's name, its folder, or `latest`
    #[arg(value_name = "RUN")]
    pub run: String,
    /// An identity that opens the sealed copies, to mail what an earlier process left
    #[arg(short, long = "identity", value_name = "FILE")]
    pub identities: Vec<PathBuf>,
    /// Whether every sealed pass is looked at once more before the end; auto leaves it out
    /// where it would take longer than two minutes
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN")]
    pub final_look: FinalLookArg,
    /// First delete the pass that holds this person's row, after asking: it is this run's own,
    /// though that cannot be told by its times
    #[arg(long = "remove-found", value_name = "UPN")]
    pub remove_found: Vec<String>,
    /// Go on however many rows, or mails, in a row are refused for the same reason; without it, eight
    /// end the command
    #[arg(long)]
    pub keep_going: bool,
}

/// `deliver`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct DeliverArgs {
    /// A run's name, its folder, or `latest`
    #[arg(value_name = "RUN")]
    pub run: String,
    /// A file with an age identity that opens the sealed copies; - reads it from stdin
    #[arg(short, long = "identity", value_name = "FILE")]
    pub identities: Vec<PathBuf>,
    /// What a mail carries [default: what the run was checked for, else pass]
    #[arg(long, value_enum)]
    pub body: Option<BodyArg>,
    /// A folder of your own letter templates [default: the one the run was checked with]
    #[arg(long, value_name = "DIR")]
    pub template: Option<PathBuf>,
    /// Only what starts within this time, such as 24h; safe to run every hour
    #[arg(long, value_name = "DURATION")]
    pub due: Option<String>,
    /// Send mails of unknown fate again, with identical bytes: somebody may get two
    #[arg(long)]
    pub resend_unsettled: bool,
    /// Try mails that were refused for good once more, as new ones
    #[arg(long)]
    pub retry_refused: bool,
    /// Go on however many mails in a row are refused for the same reason; without it, eight end
    /// the command
    #[arg(long)]
    pub keep_going: bool,
    /// Another address for the mail, or the notice, of this line that was refused or not sent
    #[arg(long, value_name = "LINE=ADDRESS")]
    pub readdress: Vec<String>,
    /// Remove the passes of rows whose mail was refused for good or came too late; a notice removes
    /// none
    #[arg(long)]
    pub revoke_undelivered: bool,
}

/// `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// A run's name, its folder, or `latest`
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Ask Graph which passes are used, unused, expired
    #[arg(long)]
    pub live: bool,
}

/// `manifest`.
#[derive(Debug, Args)]
pub struct ManifestArgs {
    /// A run's name, its folder, or `latest`
    #[arg(value_name = "RUN")]
    pub run: String,
}

/// `open`.
#[derive(Debug, Args)]
pub struct OpenArgs {
    /// Handoff files (.age or .tar), folders of them, or runs: a name, a folder, `latest`. Several are merged into one list
    #[arg(value_name = "RUN|FOLDER|FILE", required = true)]
    pub what: Vec<String>,
    /// A file with your age identity; - reads it from stdin
    #[arg(short, long = "identity", value_name = "FILE", required = true)]
    pub identities: Vec<PathBuf>,
    /// This person's pass alone
    #[arg(long, value_name = "UPN")]
    pub user: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t = OpenFormat::Table)]
    pub format: OpenFormat,
    /// Write to this new file, readable by you alone, instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `open --format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OpenFormat {
    /// For people
    Table,
    /// Verbatim
    Csv,
    /// Verbatim
    Json,
    /// A CSV that Excel neither mangles nor runs as formulas
    Excel,
    /// The same for regions where Excel separates with semicolons
    ExcelSemicolon,
}

/// `cleanup`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct CleanupArgs {
    /// A run's name, its folder, or `latest`: removes exactly what it issued
    #[arg(value_name = "RUN", group = "what")]
    pub run: Option<String>,
    /// Removes whatever pass each listed user holds, after asking
    #[arg(long, value_name = "WAVE.csv", group = "what")]
    pub csv: Option<PathBuf>,
    /// Keep the sealed copies in the ledger and the handoff folder
    #[arg(long, conflicts_with = "csv")]
    pub keep_sealed: bool,
    /// Afterwards turn the tenant's policy off, if no other run here needs it
    #[arg(long, conflicts_with = "remove_groups")]
    pub disable_policy: bool,
    /// Afterwards take this group out of the policy, if no other run here needs it
    #[arg(long = "remove-group", value_name = "NAME|ID")]
    pub remove_groups: Vec<String>,
}

/// `policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Print the policy, with what an auditor would ask about
    Show,
    /// Change lifetimes, length, or how often a pass works
    Set(PolicySetArgs),
    /// Let passes be used
    Enable(DryRun),
    /// Let no pass be used
    Disable(DryRun),
    /// Let the members of groups have passes, or everyone (all)
    Include(IncludeArgs),
    /// Keep the members of groups from having passes; wins over include
    Exclude(TargetArgs),
}

/// `policy set`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("settings").required(true).multiple(true))]
pub struct PolicySetArgs {
    /// Minutes a pass lives when nothing is asked; such as 8h too
    #[arg(long, value_name = "MINUTES", group = "settings")]
    pub default_lifetime: Option<Minutes>,
    /// Fewest minutes that may be asked, at least 10
    #[arg(long, value_name = "MINUTES", group = "settings")]
    pub min_lifetime: Option<Minutes>,
    /// Most minutes that may be asked, at most 43200, which are 30d
    #[arg(long, value_name = "MINUTES", group = "settings")]
    pub max_lifetime: Option<Minutes>,
    /// Characters in a pass, 8 to 48
    #[arg(long, value_name = "N", group = "settings")]
    pub length: Option<u32>,
    /// Every pass works once
    #[arg(long, conflicts_with = "multi_use", group = "settings")]
    pub one_time: bool,
    /// Passes may work until they expire
    #[arg(long, group = "settings")]
    pub multi_use: bool,
    /// Show the difference and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `policy enable` and `policy disable`.
#[derive(Debug, Args)]
pub struct DryRun {
    /// Show the difference and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `policy include`.
#[derive(Debug, Args)]
pub struct IncludeArgs {
    /// Whom.
    #[command(flatten)]
    pub targets: TargetArgs,
    /// These, and nobody else
    #[arg(long, conflicts_with = "remove")]
    pub only: bool,
}

/// `policy exclude`, and most of `policy include`.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// A group's name or object id; for include also `all`
    #[arg(value_name = "GROUP", required = true)]
    pub groups: Vec<String>,
    /// Take them off the list instead
    #[arg(long)]
    pub remove: bool,
    /// Show the difference and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `rehearse`.
#[derive(Debug, Args)]
pub struct RehearseArgs {
    /// The wave; without one, people are invented
    #[arg(value_name = "WAVE.csv")]
    pub wave: Option<PathBuf>,
    /// How many people to invent
    #[arg(long, value_name = "N", conflicts_with = "wave", default_value_t = 24,
          value_parser = clap::value_parser!(u64).range(1..=limits::MAX_ROWS))]
    pub rows: u64,
    /// How the tenant throttles
    #[arg(long, value_enum, default_value_t = Profile::Burst)]
    pub profile: Profile,
    /// Decides everything that is left to chance
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// What to issue, and to whom.
    #[command(flatten)]
    pub want: WaveArgs,
}

/// `rehearse --profile`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// Not at all
    None,
    /// 20 a second, 20 at once
    Bucket,
    /// 5 in each 10 seconds
    Window,
    /// 3,000 at once, then 20 a second: the documented identity budget
    Burst,
}

/// `keygen`.
#[derive(Debug, Args)]
pub struct KeygenArgs {
    /// Write to this new file, readable by you alone [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}
