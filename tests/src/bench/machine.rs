//! Which machine the figures are of.

use std::fs;

use anyhow::{Context as _, Result};
use nix::unistd::{Pid, SysconfVar, sysconf};
use serde::Serialize;

/// A machine, as far as figures depend on it.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Model of the first CPU.
    pub cpu: String,
    /// CPUs that are on.
    pub cores: usize,
    /// Main memory, MiB.
    pub memory_mib: u64,
    /// Release of the kernel.
    pub kernel: String,
    /// How the first CPU's frequency is governed; none where the kernel does not tell, as in most virtual machines.
    pub governor: Option<String>,
    /// Whether a hypervisor is below it.
    pub is_virtual: bool,
}

impl Machine {
    /// This one; what cannot be read is empty.
    #[must_use]
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        // arm64 has no name of the model there.
        let cpu = field(&cpuinfo, "model name").or_else(|| field(&cpuinfo, "CPU part"));
        let memory = read("/proc/meminfo");
        let memory_kib = field(&memory, "MemTotal").and_then(|text| text.split(' ').next()?.parse().ok());
        let governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
        Self {
            cpu: cpu.unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: memory_kib.unwrap_or(0_u64) / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            governor: Some(governor.trim().to_owned()).filter(|name| !name.is_empty()),
            is_virtual: field(&cpuinfo, "flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
        }
    }

    /// In one line.
    #[must_use]
    pub fn told(&self) -> String {
        let Self { cpu, cores, memory_mib, kernel, governor, is_virtual } = self;
        let kind = if *is_virtual { ", virtual" } else { "" };
        let governor = governor.as_deref().unwrap_or("not told");
        format!("{cpu}, {cores} CPUs, {memory_mib} MiB{kind}, Linux {kernel}, governor {governor}")
    }
}

/// CPU time of a process so far, seconds: the 14th and 15th field of `proc_pid_stat(5)`.
///
/// # Errors
/// When there is no such process.
#[expect(clippy::cast_precision_loss, reason = "ticks stay far below 2^52")]
pub fn cpu_s(pid: Pid) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, behind) = text.rsplit_once(')').context("stat")?;
    let fields = behind.split_whitespace().skip(11).take(2);
    let ticks = fields.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no CLK_TCK")?;
    Ok(ticks as f64 / per_second as f64)
}

fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::{Machine, field};

    #[test]
    fn a_field_is_known_by_its_whole_name() {
        let text = "model\t\t: 17\nmodel name\t: A CPU: fast\n";
        assert_eq!(field(text, "model name").as_deref(), Some("A CPU: fast"));
        assert_eq!(field(text, "name"), None);
        assert!(Machine::here().cores > 0 && !Machine::here().kernel.is_empty());
    }
}
