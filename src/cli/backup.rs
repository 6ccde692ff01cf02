//! `offhook backup`: a copy of the store, taken while the node runs.

use std::path::PathBuf;

use super::target::LocalStoreArgs;
use super::{Exit, print};
use store::Database;
use store::{self, BackupError};

/// The folders of `store.data_dir` with files that belong to rows of the store.
const FILES: [&str; 2] = ["recordings", "messages"];

/// Options of `offhook backup`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The file to create; it must not exist
    #[arg(value_name = "OUT.db")]
    pub out: PathBuf,
    #[command(flatten)]
    pub store: LocalStoreArgs,
}

/// Copies the store and checks the copy. Exit code 0: done; 1: failed, or the copy lacks writes; 2: no
/// store, or the file exists.
pub fn run(args: Args) -> Exit {
    let (file, data_dir) = match args.store.location() {
        Ok((Database::File(file), data_dir)) => (file, data_dir),
        Ok((at @ Database::Postgres(_), _)) => {
            return Exit::usage(format_args!(
                "{at} is PostgreSQL, which has a tool for this: pg_dump --format=custom --file={} URL",
                args.out.display()
            ));
        }
        Err(exit) => return exit,
    };
    let folder = args.out.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        return Exit::usage(format_args!(
            "could not write {}: the folder {} does not exist; create it, or name another file",
            args.out.display(),
            folder.display()
        ));
    }
    if args.store.is_default() {
        print::error_text(&format!("copying the store {}\n", file.display()));
    }
    super::run_async(async {
        match store::backup(&file, &data_dir, &args.out).await {
            Ok(made) => {
                let store::Backup { bytes, ended, open, schema, missing } = made;
                print::line(format_args!(
                    "{}: {bytes} bytes, schema {schema}, {} and {open} that had not ended, checked",
                    args.out.display(),
                    print::counted(ended, "call")
                ));
                let has_files = |name: &&&str| {
                    let entries = std::fs::read_dir(data_dir.join(name));
                    entries.is_ok_and(|mut entries| entries.next().is_some())
                };
                for name in FILES.iter().filter(has_files) {
                    print::line(format_args!(
                        "not in it: the files in {}; copy them, too",
                        data_dir.join(name).display()
                    ));
                }
                if missing == 0 {
                    return Exit::Done;
                }
                // Also if they are of a process that has ended: only a start applies them.
                Exit::failed(format_args!(
                    "the copy lacks {} in {}/store.journal: the database rejected them, or no node has applied them \
                     yet. Mend what keeps the node from writing its database, or start the node, then make another \
                     backup; until then, keep this copy and the journal",
                    print::counted(missing, "write"),
                    data_dir.display()
                ))
            }
            Err(e @ (BackupError::NoStore(_) | BackupError::Exists(_))) => {
                Exit::usage(format_args!("{e}"))
            }
            Err(e) => Exit::failed(format_args!("{e}")),
        }
    })
}
