//! The `offhook` program: hands its arguments to [`offhook::cli`] and leaves with the exit code.
#![forbid(unsafe_code)]

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    offhook::cli::main()
}
