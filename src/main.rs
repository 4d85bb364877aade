//! Arguments in, exit code out.
//!
//! Also what must hold for the whole process before anything else happens: freed memory is
//! wiped, no core is dumped, nobody traces it.

#[path = "main/stopping.rs"]
mod stopping;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, FromArgMatches};
use tapwave::args::Cli;
use tapwave::commands::{CommandLine, World, perform};
use tapwave::output::{Log, Manner, Report, TerminalPrompts};
use tapwave_core::clock::Clock;
use tapwave_core::exit::Exit;
use tapwave_core::limits;
use tapwave_pipeline::stop::StopSignal;
use zeroizing_alloc::ZeroAlloc;

/// Wipes memory when it is freed, so that no buffer of a library keeps a pass.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<std::alloc::System> = ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    keep_out_of_dumps();
    take_full_files_as_errors();
    let given = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&given)
        .unwrap_or_else(|error| error.format(&mut Cli::command()).exit());
    let manner = Manner {
        quiet: cli.common.quiet,
        verbose: cli.common.verbose,
        json: cli.common.json,
        no_progress: cli.common.no_progress,
    };
    let report = Arc::new(Report::new(manner));
    let (switch, stop) = StopSignal::new();
    stopping::listen(switch, stop.clone(), &report);
    let world = World {
        environment: Box::new(|name| std::env::var(name).ok()),
        clock: Clock::of_the_process(),
        stop: stop.clone(),
        report: Arc::clone(&report),
        log: Log::begin(manner.verbose > 1),
        prompts: TerminalPrompts::on_terminal(stop),
        common: cli.common.clone(),
        line: CommandLine::new(&given),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            report.error(format_args!("failed to start: {error}"));
            return Exit::Unexpected.into();
        }
    };
    let exit = match runtime.block_on(perform(cli, &world)) {
        Ok(exit) => exit,
        Err(failure) => {
            report.fail(&failure.message, failure.exit);
            failure.exit
        }
    };
    // What is stuck by now, such as the look-up of a name, is not waited for.
    runtime.shutdown_timeout(limits::WIND_UP);
    exit.into()
}

/// A limit on the size of files kills whoever reaches it, unless the signal that says so is
/// taken: then the write fails, as on a full disk.
#[cfg(unix)]
fn take_full_files_as_errors() {
    // Taken and not ignored, which would be handed on to every program that is started here.
    let taken = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
    // A system that refuses is no worse off than without.
    drop(taken);
}

#[cfg(not(unix))]
fn take_full_files_as_errors() {}

/// A core file or a debugger would see the passes that are in flight. Best effort: a system
/// that refuses is no worse off than without.
#[cfg(unix)]
fn keep_out_of_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = setrlimit(Resource::Core, none);
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
}

#[cfg(not(unix))]
fn keep_out_of_dumps() {}
