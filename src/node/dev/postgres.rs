//! A PostgreSQL server on loopback that lives as long as a development fleet.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::free_address;
use super::process::{Owner, Process};

/// The oldest version that a fleet supports.
const VERSION_MIN: u32 = 15;

/// Timeout for the server to start.
const START_TIME: Duration = Duration::from_secs(30);
/// Timeout for the server to end.
const END_TIME: Duration = Duration::from_secs(5);

/// Time for which a standby is behind the primary when it is promoted.
const LAG: Duration = Duration::from_secs(1);

/// The superuser of the server.
const USER: &str = "offhook";

/// Why the server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error(
        "a fleet needs PostgreSQL {VERSION_MIN} or later: `postgres` and `initdb` are neither in PATH nor in \
         /usr/lib/postgresql/*/bin\ninstall it (Debian, Ubuntu: apt install postgresql; Fedora: dnf install \
         postgresql-server; macOS: brew install postgresql)"
    )]
    NotFound,
    #[error(
        "a fleet needs PostgreSQL {VERSION_MIN} or later; {} is version {found}", program.display()
    )]
    Old { program: PathBuf, found: u32 },
    #[error("root must not run PostgreSQL, and there is no user `nobody` to run it")]
    NoUser,
    #[error("could not {what}: {source}")]
    Io { what: &'static str, source: io::Error },
    #[error("could not {what}:\n{output}")]
    Failed { what: &'static str, output: String },
}

/// A running server.
#[derive(Debug)]
pub(super) struct Postgres {
    programs: PathBuf,
    owner: Option<Owner>,
    folder: PathBuf,
    data: PathBuf,
    /// How often a standby was promoted.
    failovers: u32,
    password: String,
    address: SocketAddr,
    process: Process,
}

impl Postgres {
    /// Creates an empty database cluster in a folder, and starts a server for it.
    ///
    /// # Errors
    /// Returns an error if PostgreSQL is not installed, or does not start.
    pub(super) async fn start(folder: &Path) -> Result<Self, PostgresError> {
        let programs = find_programs().ok_or(PostgresError::NotFound)?;
        check_version(&programs.join("postgres")).await?;
        let owner = match rustix::process::geteuid().is_root() {
            true => Some(nobody().ok_or(PostgresError::NoUser)?),
            false => None,
        };
        let io = |what| move |source| PostgresError::Io { what, source };
        let (data, secret) = (folder.join("data"), folder.join("password"));
        let password = format!("{:032x}", rand::random::<u128>());
        std::fs::create_dir_all(folder).map_err(io("create the folder of PostgreSQL"))?;
        std::fs::write(&secret, &password).map_err(io("write the password of PostgreSQL"))?;
        for path in [folder, &secret] {
            if let Some(Owner { user, group }) = owner {
                std::os::unix::fs::chown(path, Some(user), Some(group))
                    .map_err(io("hand the folder of PostgreSQL over"))?;
            }
        }
        let mut init = Command::new(programs.join("initdb"));
        init.arg("-D").arg(&data).arg("--pwfile").arg(&secret);
        init.args(["-U", USER, "--auth=scram-sha-256", "--no-sync", "-E", "UTF8", "--locale=C"]);
        init.current_dir("/").stdin(Stdio::null());
        if let Some(Owner { user, group }) = owner {
            init.uid(user).gid(group);
        }
        let made = init.output().await.map_err(io("run initdb"))?;
        if !made.status.success() {
            let output = String::from_utf8_lossy(&made.stderr).into_owned();
            return Err(PostgresError::Failed { what: "create a database with initdb", output });
        }
        let address = free_address().map_err(io("find a free port"))?;
        let process = run(&programs, owner, &data, address, &[]).await?;
        let (folder, failovers) = (folder.to_owned(), 0);
        Ok(Self { programs, owner, folder, data, failovers, password, address, process })
    }

    /// Returns the address at which it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns its URL when it is reached at another address.
    pub(super) fn url_at(&self, address: SocketAddr) -> String {
        format!("postgres://{USER}:{}@{address}/postgres", self.password)
    }

    /// Stops and restarts the server.
    ///
    /// # Errors
    /// Returns an error if it does not start.
    pub(super) async fn restart(&mut self) -> Result<(), PostgresError> {
        self.end().await;
        self.process = run(&self.programs, self.owner, &self.data, self.address, &[]).await?;
        Ok(())
    }

    /// Replaces the server by a copy that lacks its last second, as if an asynchronous standby was
    /// promoted after a crash. The server is killed.
    ///
    /// # Errors
    /// Returns an error if the copy fails, or does not start.
    pub(super) async fn fail_over(&mut self) -> Result<(), PostgresError> {
        let io = |what| move |source| PostgresError::Io { what, source };
        self.failovers += 1;
        let standby = self.folder.join(format!("standby-{}", self.failovers));
        // Only some of the programs may be linked into PATH.
        let postgres = std::fs::canonicalize(self.programs.join("postgres"));
        let program = postgres.map_err(io("find pg_basebackup"))?.with_file_name("pg_basebackup");
        let mut copy = Command::new(program);
        copy.arg("-D").arg(&standby).args(["-X", "fetch", "-c", "fast", "--no-sync", "-w"]);
        copy.args(["-h", "127.0.0.1", "-U", USER, "-p", &self.address.port().to_string()]);
        copy.env("PGPASSWORD", &self.password).current_dir("/").stdin(Stdio::null());
        if let Some(Owner { user, group }) = self.owner {
            copy.uid(user).gid(group);
        }
        let copied = copy.output().await.map_err(io("run pg_basebackup"))?;
        if !copied.status.success() {
            let output = String::from_utf8_lossy(&copied.stderr).into_owned();
            return Err(PostgresError::Failed { what: "copy the database", output });
        }
        // Recovery of an archive ends with a promotion.
        let signal = standby.join("recovery.signal");
        std::fs::write(&signal, "").map_err(io("prepare the copy of the database"))?;
        if let Some(Owner { user, group }) = self.owner {
            std::os::unix::fs::chown(&signal, Some(user), Some(group))
                .map_err(io("prepare the copy of the database"))?;
        }
        tokio::time::sleep(LAG).await;
        self.process.signal(Signal::QUIT);
        let _ = tokio::time::timeout(END_TIME, self.process.wait()).await;
        let old = std::mem::replace(&mut self.data, standby);
        let archive = ["restore_command=false"];
        self.process = run(&self.programs, self.owner, &self.data, self.address, &archive).await?;
        std::fs::remove_dir_all(old).map_err(io("delete the old database"))
    }

    /// Stops the server. Its clients lose their connections.
    pub(super) async fn end(&mut self) {
        for signal in [Signal::INT, Signal::QUIT] {
            self.process.signal(signal);
            if tokio::time::timeout(END_TIME, self.process.wait()).await.is_ok() {
                return;
            }
        }
    }
}

/// Starts the server, and waits until it accepts connections.
async fn run(
    programs: &Path,
    owner: Option<Owner>,
    data: &Path,
    address: SocketAddr,
    more: &[&str],
) -> Result<Process, PostgresError> {
    let io = |what| move |source| PostgresError::Io { what, source };
    let mut command = Command::new(programs.join("postgres"));
    command.arg("-D").arg(data).args(["-p", &address.port().to_string()]);
    // The world is thrown away at its end: nothing has to reach the disk.
    for setting in [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "max_connections=200",
        "fsync=off",
        "lc_messages=C",
        "log_destination=stderr",
        "logging_collector=off",
    ]
    .iter()
    .chain(more)
    {
        command.args(["-c", setting]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut process = Process::start(&mut command, owner).map_err(io("start PostgreSQL"))?;
    let mut output = String::new();
    if let Some(stderr) = process.take_stderr() {
        let mut lines = BufReader::new(stderr).lines();
        let ready = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if line.contains("ready to accept connections") {
                    return true;
                }
                output.push_str(&line);
                output.push('\n');
            }
            false
        };
        if matches!(tokio::time::timeout(START_TIME, ready).await, Ok(true)) {
            // A pipe that is not read would stop the server when it is full.
            tokio::spawn(async move {
                while let Ok(Some(line)) = lines.next_line().await {
                    tracing::debug!("PostgreSQL: {line}");
                }
            });
            return Ok(process);
        }
    }
    Err(PostgresError::Failed { what: "start PostgreSQL", output })
}

/// Returns the folder with the programs of the newest installed server.
fn find_programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path);
    let mut installed: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|version| {
            Some((version.file_name().to_str()?.parse().ok()?, version.path().join("bin")))
        })
        .collect();
    installed.sort();
    let installed = installed.into_iter().rev().map(|(_, folder)| folder);
    in_path.chain(installed).find(|folder| has_programs(folder))
}

fn has_programs(folder: &Path) -> bool {
    ["postgres", "initdb"].iter().all(|program| folder.join(program).is_file())
}

async fn check_version(program: &Path) -> Result<(), PostgresError> {
    let asked = Command::new(program).arg("--version").stdin(Stdio::null()).output().await;
    let asked = asked.map_err(|source| PostgresError::Io { what: "run postgres", source })?;
    match major_version(&String::from_utf8_lossy(&asked.stdout)) {
        Some(found) if found < VERSION_MIN => {
            Err(PostgresError::Old { program: program.to_owned(), found })
        }
        _ => Ok(()),
    }
}

/// The major version in the output of `postgres --version`.
fn major_version(output: &str) -> Option<u32> {
    let version =
        output.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Returns the user `nobody`, which owns no files.
fn nobody() -> Option<Owner> {
    user_named("nobody", &std::fs::read_to_string("/etc/passwd").ok()?)
}

/// A user of `/etc/passwd`.
fn user_named(name: &str, users: &str) -> Option<Owner> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        let (user, group) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Owner { user, group })
    })
}

#[cfg(test)]
mod tests {
    use super::{Owner, major_version, user_named};

    #[test]
    fn versions_and_users_are_read() {
        assert_eq!(major_version("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)"), Some(15));
        assert_eq!(major_version("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_version("?"), None);
        let users =
            "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65533:nobody:/:/usr/sbin/nologin\n";
        assert_eq!(user_named("nobody", users), Some(Owner { user: 65_534, group: 65_533 }));
        assert_eq!(user_named("postgres", users), None);
    }
}
