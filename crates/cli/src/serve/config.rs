//! `--config FILE`: its lines are read as if they stood on the command line, before what really stands there, so that
//! the options and their checks are one table.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory};
use k2_server::{ConfigError, ConfigOption, Takes, open_config};
use toml::Value;

use crate::commands::Cli;

/// What clap calls the MODEL, and the file too.
const MODEL: &str = "model";
/// Options that a file does not have.
const NOT_IN_A_FILE: [&str; 3] = ["config", "print-config", "help"];

/// The arguments of this process with those of its config file, if it is `k2 serve` and has one.
pub(crate) fn with_config(arguments: Vec<OsString>) -> Result<Vec<OsString>, ConfigError> {
    if arguments.get(1).is_none_or(|command| command != "serve") {
        return Ok(arguments);
    }
    let command = serve_command().mut_arg(MODEL, |model| model.required(false));
    // What is wrong with the command line is said when it is read in earnest.
    let Ok(matches) = command.clone().try_get_matches_from(&arguments[1..]) else { return Ok(arguments) };
    let Some(path) = matches.get_one::<PathBuf>("config") else { return Ok(arguments) };
    let options = open_config(path, &known(&command))?;
    let (head, rest) = arguments.split_at(2);
    let (mut model, mut of_file) = (None, Vec::new());
    for option in options.into_iter().filter(|option| !is_settled(&command, &matches, &option.name)) {
        match option.name.as_str() {
            MODEL => model = option.values.into_iter().next().map(OsString::from),
            _ => of_file.extend(written(&option)),
        }
    }
    Ok([head, &of_file, rest].concat().into_iter().chain(model).collect())
}

/// Prints the options in force.
pub(super) fn print() -> Result<(), Box<dyn Error>> {
    let command = serve_command();
    let arguments = with_config(env::args_os().collect())?;
    let matches = command.clone().try_get_matches_from(&arguments[1..])?;
    for argument in in_a_file(&command) {
        if let Some(value) = value(argument, &matches) {
            writeln!(io::stdout(), "{} = {value}", name(argument))?;
        }
    }
    Ok(())
}

fn serve_command() -> Command {
    // Not built yet: a built command does not find arguments that are changed afterwards.
    Cli::command().find_subcommand("serve").cloned().unwrap_or_default()
}

fn in_a_file(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|argument| !NOT_IN_A_FILE.contains(&name(argument)))
}

fn name(argument: &Arg) -> &str {
    argument.get_long().unwrap_or(argument.get_id().as_str())
}

fn known(command: &Command) -> Vec<(&str, Takes)> {
    let takes = |argument: &Arg| match argument.get_action() {
        ArgAction::SetTrue => Takes::Nothing,
        ArgAction::Append => Takes::List,
        _ => Takes::Value,
    };
    in_a_file(command).map(|argument| (name(argument), takes(argument))).collect()
}

/// Whether the command line or the environment has decided it: by the option itself, or by one that excludes it.
fn is_settled(command: &Command, matches: &ArgMatches, of_file: &str) -> bool {
    let excludes = |one: &Arg, other: &Arg| {
        command.get_arg_conflicts_with(one).iter().any(|excluded| excluded.get_id() == other.get_id())
    };
    let option = command.get_arguments().find(|argument| name(argument) == of_file);
    let mut given = command.get_arguments().filter(|argument| is_given(matches, argument.get_id().as_str()));
    is_given(matches, of_file)
        || option.is_some_and(|option| given.any(|given| excludes(option, given) || excludes(given, option)))
}

/// Whether the command line or the environment says it already.
fn is_given(matches: &ArgMatches, name: &str) -> bool {
    let source = matches.value_source(&name.replace('-', "_"));
    matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

/// As it would stand on a command line.
fn written(option: &ConfigOption) -> Vec<OsString> {
    let ConfigOption { name, values } = option;
    match values.is_empty() {
        true => vec![format!("--{name}").into()],
        false => values.iter().map(|value| format!("--{name}={value}").into()).collect(),
    }
}

/// As it would stand in a file; none if it is not set.
fn value(argument: &Arg, matches: &ArgMatches) -> Option<Value> {
    let id = argument.get_id().as_str();
    if matches!(argument.get_action(), ArgAction::SetTrue) {
        return Some(Value::Boolean(matches.get_flag(id)));
    }
    let secret = id == "api_key";
    let one = |text: &OsString| match text.to_string_lossy() {
        // Too short to be a key, should somebody use the output as a file.
        _ if secret => Value::String("***".into()),
        text => match text.parse::<i64>() {
            Ok(number) if number.to_string() == text => Value::Integer(number),
            _ => Value::String(text.into_owned()),
        },
    };
    let values = matches.get_raw(id).into_iter().flatten();
    let values: Vec<Value> = values.map(|text| one(&text.to_owned())).collect();
    match argument.get_action() {
        ArgAction::Append => Some(Value::Array(values)),
        _ => values.into_iter().next(),
    }
}
