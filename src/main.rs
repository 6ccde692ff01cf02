//! The `offhook` binary: runs [`offhook::cli::main`] and returns its exit code.
#![forbid(unsafe_code)]

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    offhook::cli::main()
}
