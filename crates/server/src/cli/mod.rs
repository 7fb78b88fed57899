//! The command line.
//!
//! Exit codes: 0 done, 1 failed (or, for `verify`, something is wrong with the data), 2 called wrongly, 3 (`verify`) nothing
//! is wrong, but a key may not be used now, so not everything was opened. What scripts read goes to standard output, logs go
//! to standard error.
//!
//! Start reading at [`run`].

mod audit;
mod client;
mod cluster;
mod collection;
mod dev;
mod hardening;
mod key;
mod key_jobs;
mod key_policy;
mod kms;
mod output;
mod project;
mod serve;
mod verify;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use saker_keyring::{STACK_BYTES, overwrite_stack};
use tokio_util::sync::CancellationToken;

/// A vector database whose customer holds the keys.
#[derive(Debug, Parser)]
#[command(
    name = "saker",
    version,
    about = "A vector database whose customer holds the keys",
    propagate_version = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: LogOptions,
    /// Let other processes of the same user read this one's memory, keys and rows included: for debugging a server
    /// without data that matters
    #[arg(long, global = true, env = "SAKER_DANGEROUS_ALLOW_DEBUGGER")]
    dangerous_allow_debugger: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything for an evaluation in one command: a key server, the database, a status page
    Dev(dev::Options),
    /// The database, as configured in a file
    Serve(serve::Options),
    /// The local key server
    #[command(subcommand)]
    Kms(KmsCommand),
    /// Check every stored byte offline: headers, key versions, tags. Needs the key service's Decrypt only
    Verify(verify::Options),
    /// Root keys of a running database
    #[command(subcommand)]
    Key(KeyCommand),
    /// The audit log: read, export and check it, and compare it with the key service's own record
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Collections of a running database
    #[command(subcommand)]
    Collection(CollectionCommand),
    /// Projects: who owns clusters and root keys
    #[command(subcommand)]
    Project(project::ProjectCommand),
    /// Clusters of a running server
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// API keys of the control plane
    #[command(subcommand)]
    ApiKey(project::ApiKeyCommand),
    /// Receipts of drops: which keys were destroyed
    #[command(subcommand)]
    Receipt(ReceiptCommand),
}

#[derive(Debug, Subcommand)]
enum KmsCommand {
    /// Serve keys with the AWS KMS protocol, for development and air-gapped use
    Serve(kms::Options),
}

#[derive(Debug, Subcommand)]
enum CollectionCommand {
    /// Move a collection to another database: under that one's key, by rewrapping, without copying a row
    Move(collection::MoveOptions),
}

#[derive(Debug, Subcommand)]
enum ReceiptCommand {
    /// Show all receipts, newest first
    List(collection::ListOptions),
    /// Show one
    Show(collection::ShowOptions),
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Show the root keys in use, or those that are registered with a project, and whether they may be used
    List(key::ListOptions),
    /// Register a root key with a project, after trying it
    Add(key_policy::AddOptions),
    /// Show a registered root key: its state and who uses it
    Show(key_policy::OneOptions),
    /// Take a root key that nothing uses away from a project
    Remove(key_policy::OneOptions),
    /// Print what a key's owner has to allow, as commands to paste and run
    Policy(key_policy::PolicyOptions),
    /// Ask the key services now, then show the same
    Check(key::Options),
    /// Give a database a new zone key and wrap all its data keys under it, while it is in use
    Rotate(key_jobs::ZoneOptions),
    /// The same for everything under a root key, after its key service gave it new material
    Rewrap(key_jobs::RewrapOptions),
    /// Put a database under another root key, while it is in use
    Change(key_jobs::ChangeOptions),
    /// Write all rows of a database again under fresh data keys, while it is in use
    Reencrypt(key_jobs::ZoneOptions),
    /// Show the jobs that change keys
    Jobs(key_jobs::JobsOptions),
    /// Go on with a job that failed
    Retry(key_jobs::RetryOptions),
}

#[derive(Clone, Debug, Args)]
struct LogOptions {
    /// How logs are written to standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text, global = true, env = "SAKER_LOG_FORMAT")]
    log_format: LogFormat,
    /// What is logged: a level, or levels by part such as `info,saker_engine=debug`
    #[arg(long, default_value = "info", global = true, env = "SAKER_LOG")]
    log_level: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// What a command ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// It ran, and what it found is not as it should be.
    Bad,
    /// It ran and found nothing wrong, but could not look at everything.
    Incomplete,
}

/// Why a command failed: a message for people.
type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Runs the command that the process was called with.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    hardening::harden(cli.dangerous_allow_debugger);
    say_where_it_panicked();
    if let Err(error) = start_logging(&cli.log) {
        output::error(format_args!("--log-level: {error}"));
        return ExitCode::from(2);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // Requests leave parts of rows and keys on the stack of the thread that they ran on.
        .on_thread_park(overwrite_stack::<STACK_BYTES>)
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            output::error(format_args!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    // On the runtime's own threads, whose stacks are overwritten, and not on this one.
    let outcome = runtime.block_on(runtime.spawn(execute(cli))).unwrap_or_else(|_| {
        // What panicked is in the log.
        Err("the program ended without a result".into())
    });
    // Nothing that is still running on a blocking thread may hold up the exit.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match outcome {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Bad) => ExitCode::FAILURE,
        Ok(Outcome::Incomplete) => ExitCode::from(3),
        Err(error) => {
            output::error(error);
            ExitCode::FAILURE
        }
    }
}

async fn execute(cli: Cli) -> Result<Outcome, Failed> {
    match cli.command {
        Command::Dev(options) => Box::pin(dev::run(options, &cli.log)).await,
        Command::Serve(options) => Box::pin(serve::run(options)).await,
        Command::Kms(KmsCommand::Serve(options)) => kms::run(options).await,
        Command::Audit(command) => Box::pin(audit::run(command)).await,
        Command::Verify(options) => verify::run(options).await,
        Command::Key(KeyCommand::List(options)) => key::list(options).await,
        Command::Key(KeyCommand::Check(options)) => key::check(options).await,
        Command::Key(KeyCommand::Rotate(options)) => key_jobs::rotate(options).await,
        Command::Key(KeyCommand::Rewrap(options)) => key_jobs::rewrap(options).await,
        Command::Key(KeyCommand::Change(options)) => key_jobs::change(options).await,
        Command::Key(KeyCommand::Reencrypt(options)) => key_jobs::reencrypt(options).await,
        Command::Key(KeyCommand::Jobs(options)) => key_jobs::jobs(options).await,
        Command::Key(KeyCommand::Retry(options)) => key_jobs::retry(options).await,
        Command::Key(KeyCommand::Add(options)) => key_policy::add(options).await,
        Command::Key(KeyCommand::Show(options)) => key_policy::show(options).await,
        Command::Key(KeyCommand::Remove(options)) => key_policy::remove(options).await,
        Command::Key(KeyCommand::Policy(options)) => key_policy::policy(options).await,
        Command::Project(command) => project::project(command).await,
        Command::Cluster(command) => cluster::run(command).await,
        Command::ApiKey(command) => project::api_key(command).await,
        Command::Collection(CollectionCommand::Move(options)) => collection::move_to(options).await,
        Command::Receipt(ReceiptCommand::List(options)) => collection::list_receipts(options).await,
        Command::Receipt(ReceiptCommand::Show(options)) => collection::show_receipt(options).await,
    }
}

/// A panic's message may quote what it was about, so only its place is logged.
fn say_where_it_panicked() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a bug: the program panicked; report this place and the version");
    }));
}

/// The AWS library's own messages name access key ids; they are let through only where `--log-level` asks for them.
const QUIET_TARGETS: &str = "aws_config=warn,aws_runtime=warn,aws_smithy_runtime=warn";

fn start_logging(options: &LogOptions) -> Result<(), Failed> {
    use tracing_subscriber::{EnvFilter, fmt};
    let filter = EnvFilter::try_new(format!("{QUIET_TARGETS},{}", options.log_level))?;
    let builder = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    match options.log_format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    }
}

/// Cancelled by SIGTERM or SIGINT.
fn stop_on_signals() -> Result<CancellationToken, std::io::Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancelled.cancel();
    });
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wrong_call_is_a_usage_error() {
        let error = Cli::try_parse_from(["saker", "dev", "--nonsense"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert_eq!(Cli::try_parse_from(["saker", "--help"]).unwrap_err().exit_code(), 0);
    }
}
