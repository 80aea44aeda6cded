//! A row as data.

use std::fmt;

use anyhow::Result;

use crate::{bench::Bench, finding::Finding};

/// Which device the traffic crosses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// A veth pair between two namespaces.
    Veth,
    /// The loopback device of one namespace.
    Lo,
}

/// Which side of the traffic the rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The target sends what is measured.
    Egress,
    /// The target receives what is measured.
    Ingress,
    /// The target sends; the direction is the fault's own.
    Own,
}

/// Where a row is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) device: Device,
    pub(crate) v6: bool,
    pub(crate) way: Way,
    /// The rule is for the cgroup of the program, else for its whole namespace.
    pub(crate) cgroup: bool,
}

impl Place {
    /// A veth pair, IPv4, a rule for the namespace, the fault's own direction.
    pub(crate) const VETH: Self = Self { device: Device::Veth, v6: false, way: Way::Own, cgroup: false };
    /// The same on the loopback device.
    pub(crate) const LO: Self = Self { device: Device::Lo, ..Self::VETH };

    pub(crate) const fn v6(self) -> Self {
        Self { v6: true, ..self }
    }

    pub(crate) const fn egress(self) -> Self {
        Self { way: Way::Egress, ..self }
    }

    pub(crate) const fn ingress(self) -> Self {
        Self { way: Way::Ingress, ..self }
    }

    pub(crate) const fn cgroup(self) -> Self {
        Self { cgroup: true, ..self }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.device {
            Device::Veth => "veth",
            Device::Lo => "lo",
        })?;
        formatter.write_str(if self.v6 { " IPv6" } else { " IPv4" })?;
        formatter.write_str(match self.way {
            Way::Egress => " egress",
            Way::Ingress => " ingress",
            Way::Own => "",
        })?;
        formatter.write_str(if self.cgroup { " cgroup" } else { "" })
    }
}

/// How a row is measured.
type Measure = Box<dyn Fn(&Bench<'_>) -> Result<Vec<Finding>>>;

/// One row.
pub(crate) struct Row {
    /// What is looked at.
    pub(crate) name: String,
    /// The flags of `chaos inject`, or `partition A B` and its flags.
    pub(crate) asked: String,
    /// Where.
    pub(crate) place: Place,
    /// Measures, and compares with the bounds.
    pub(crate) measure: Measure,
    /// Programs it needs.
    pub(crate) tools: Vec<&'static str>,
}

impl Row {
    pub(crate) fn new(
        name: impl Into<String>,
        asked: impl Into<String>,
        place: Place,
        measure: impl Fn(&Bench<'_>) -> Result<Vec<Finding>> + 'static,
    ) -> Self {
        Self { name: name.into(), asked: asked.into(), place, measure: Box::new(measure), tools: Vec::new() }
    }

    /// Needs a program.
    pub(crate) fn needs(mut self, tool: &'static str) -> Self {
        self.tools.push(tool);
        self
    }

    /// Name and place.
    pub(crate) fn title(&self) -> String {
        format!("{}, {}", self.name, self.place)
    }

    /// The arguments of `chaos` are those of `chaos partition`.
    pub(crate) fn is_partition(&self) -> bool {
        self.asked.starts_with("partition ")
    }
}
