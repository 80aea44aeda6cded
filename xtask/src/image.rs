//! The image that `deploy/Dockerfile` describes, made without Docker: its last stage is a folder and a few words.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use parse_dockerfile::{Command as Words, Flag, HealthcheckArguments, Instruction, Source, Stage};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::process;

const FILE: &str = "deploy/Dockerfile";
/// What the first stage leaves for the last.
const BINARY: &str = "/out/chaos";

/// The last stage.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Image {
    /// Who runs it, `USER:GROUP`.
    pub(crate) user: String,
    /// What is run whatever else is said.
    pub(crate) entrypoint: Vec<String>,
    /// And this, if nothing else is said.
    pub(crate) cmd: Vec<String>,
    /// What asks whether it is well.
    pub(crate) healthcheck: Vec<String>,
    /// Where its only file is.
    pub(crate) binary: String,
    /// How it is told to end.
    pub(crate) stop_signal: String,
}

impl Image {
    /// Reads the file, and holds it to be what this repository promises: pinned, static, nothing but the binary.
    ///
    /// # Errors
    /// The file cannot be read, or it is something else.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let text = fs::read_to_string(root.join(FILE)).context(FILE)?;
        let toolchain = fs::read_to_string(root.join("rust-toolchain.toml"))?;
        let channel = toolchain.split('"').nth(1).context("no channel in rust-toolchain.toml")?;
        Self::parse(&text, channel).context(FILE)
    }

    fn parse(text: &str, channel: &str) -> Result<Self> {
        let parsed = parse_dockerfile::parse(text)?;
        let stages: Vec<Stage> = parsed.stages().collect();
        let [build, last] = stages.as_slice() else { bail!("{} stages, not two", stages.len()) };
        let base = &build.from.image.value;
        ensure!(
            base == &format!("rust:{channel}-alpine"),
            "it is built on {base}, not Rust {channel} of Alpine"
        );
        let name = build.from.as_.as_ref().map(|(_, name)| name.value.as_ref());
        let name = name.context("the first stage has no name")?;
        let runs = build.instructions.iter().any(|one| {
            let Instruction::Run(run) = one else { return false };
            matches!(&run.arguments, Words::Shell(line) if line.value.contains("cargo build --locked --release"))
        });
        ensure!(runs, "what is built is not what Cargo.lock names");
        ensure!(last.from.image.value == "scratch", "the base {} is not empty", last.from.image.value);
        let mut image = Self::default();
        for instruction in last.instructions {
            image.take(instruction, name)?;
        }
        image.is_whole()?;
        Ok(image)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the list of instructions may grow, and all but these are wrong"
    )]
    fn take(&mut self, instruction: &Instruction<'_>, build: &str) -> Result<()> {
        match instruction {
            Instruction::Label(_) => {}
            Instruction::User(user) => self.user = user.arguments.value.clone().into_owned(),
            Instruction::Stopsignal(signal) => self.stop_signal = signal.arguments.value.clone().into_owned(),
            Instruction::Entrypoint(entrypoint) => self.entrypoint = words(&entrypoint.arguments)?,
            Instruction::Cmd(cmd) => self.cmd = words(&cmd.arguments)?,
            Instruction::Healthcheck(check) => match &check.arguments {
                HealthcheckArguments::Cmd { arguments, .. } => self.healthcheck = words(arguments)?,
                _ => bail!("no HEALTHCHECK"),
            },
            Instruction::Copy(copy) => {
                let is_from = |flag: &Flag<'_>| {
                    flag.name.value == "from" && flag.value.as_ref().is_some_and(|value| value.value == build)
                };
                let [flag] = copy.options.as_slice() else { bail!("options of COPY") };
                let [Source::Path(source)] = copy.src.as_slice() else { bail!("more than a file is copied") };
                ensure!(is_from(flag) && source.value == BINARY, "{} is copied, not {BINARY}", source.value);
                ensure!(self.binary.is_empty(), "a second file is copied");
                self.binary = copy.dest.value.clone().into_owned();
            }
            _ => bail!("the image holds more than a binary: {instruction:?}"),
        }
        Ok(())
    }

    fn is_whole(&self) -> Result<()> {
        ensure!(self.binary.starts_with('/'), "no binary, or not at an absolute path: `{}`", self.binary);
        ensure!(self.entrypoint == [self.binary.as_str()], "what is run is {:?}", self.entrypoint);
        // There is no shell and no PATH, and no file that knows names of users.
        let asks = self.healthcheck.first();
        ensure!(asks == Some(&self.binary), "its health is asked for by {:?}", self.healthcheck);
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let user = self.user.split_once(':');
        ensure!(
            user.is_some_and(|(user, group)| is_number(user) && is_number(group)),
            "the user `{}` is no pair of numbers",
            self.user
        );
        ensure!(self.stop_signal == "SIGTERM", "it is stopped by `{}`", self.stop_signal);
        Ok(())
    }

    /// Writes the image with this binary as an archive, unpacked, as `docker save` makes them.
    ///
    /// # Errors
    /// When a file cannot be written, or `tar` is missing.
    pub(crate) fn write(&self, binary: &Path, folder: &Path, name: &str) -> Result<PathBuf> {
        let (root, archive) = (folder.join("root"), folder.join("image"));
        let inside = root.join(self.binary.trim_start_matches('/'));
        fs::create_dir_all(inside.parent().unwrap_or(&root))?;
        fs::create_dir_all(&archive)?;
        fs::copy(binary, &inside).with_context(|| binary.display().to_string())?;
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o755))?;
        let layer = archive.join("layer.tar");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&root).args(["--sort=name", "--owner=0", "--group=0", "--mtime=@0", "-cf"]);
        process::run(tar.arg(&layer).arg("."))?;
        let digest = Sha256::digest(fs::read(&layer)?);
        let digest = digest.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        let asks: Vec<&str> =
            ["CMD"].into_iter().chain(self.healthcheck.iter().map(String::as_str)).collect();
        let config = json!({
            "architecture": architecture(), "os": "linux",
            "config": {"User": self.user, "Entrypoint": self.entrypoint, "Cmd": self.cmd, "StopSignal": self.stop_signal,
                "Healthcheck": {"Test": asks}},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        });
        let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
        fs::write(archive.join("config.json"), config.to_string())?;
        fs::write(archive.join("manifest.json"), manifest.to_string())?;
        Ok(archive)
    }
}

/// This machine's processor as images call it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A command without a shell, which the image does not have.
fn words(command: &Words<'_>) -> Result<Vec<String>> {
    match command {
        Words::Exec(words) => Ok(words.value.iter().map(|word| word.value.clone().into_owned()).collect()),
        Words::Shell(_) | _ => bail!("a command for a shell: {command:?}"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

    use super::{FILE, Image};

    #[test]
    fn what_the_image_must_not_be_is_refused() {
        let text = std::fs::read_to_string(crate::root().join(FILE)).unwrap();
        let image = Image::parse(&text, "1.95.0").unwrap();
        assert_eq!((image.user.as_str(), image.binary.as_str()), ("0:0", "/chaos"));
        assert_eq!([image.entrypoint, image.cmd].concat(), ["/chaos", "agent"]);
        assert!(Image::parse(&text, "1.96.0").is_err());
        for (from, to) in [
            ("cargo build --locked", "cargo build"),
            ("FROM scratch", "FROM alpine"),
            ("USER 0:0", "USER root"),
            ("STOPSIGNAL SIGTERM", "STOPSIGNAL SIGKILL"),
            ("COPY --from=build /out/chaos /chaos", "COPY --from=build /out /"),
            ("COPY --from=build /out/chaos /chaos", "COPY chaos /chaos"),
            ("COPY --from=build /out/chaos /chaos", "ADD chaos /chaos"),
            ("ENTRYPOINT [\"/chaos\"]", "ENTRYPOINT [\"/bin/chaos\"]"),
            ("ENTRYPOINT [\"/chaos\"]", "ENTRYPOINT /chaos"),
            ("CMD [\"/chaos\", \"probe\"]", "CMD [\"curl\", \"localhost\"]"),
            ("CMD [\"/chaos\", \"probe\"]", "NONE"),
            ("CMD [\"agent\"]", "CMD [\"agent\"]\nENV A=b"),
        ] {
            assert!(text.contains(from), "{from}");
            assert!(Image::parse(&text.replace(from, to), "1.95.0").is_err(), "{from} -> {to}");
        }
    }
}
