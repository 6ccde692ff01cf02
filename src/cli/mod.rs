//! Arguments, printing, exit codes; a file a command.

/// Runs the program: reads the arguments, does what they say.
pub fn main() -> std::process::ExitCode {
    todo!("room cli")
}
