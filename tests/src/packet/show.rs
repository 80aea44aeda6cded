//! A packet printed as the sentence that builds it.

use std::fmt::{self, Display, Formatter};

use super::{Link, Net, Packet, Transport};

impl Display for Packet {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Packet::new()")?;
        if let Link::Eth { tags, .. } = &self.link {
            f.write_str(".eth()")?;
            for (_, id) in tags {
                write!(f, ".vlan({id})")?;
            }
        }
        self.show_net(f)?;
        if self.tos != 0 {
            write!(f, ".tos({:#04x})", self.tos)?;
        }
        self.show_transport(f)?;
        match self.payload.len() {
            0 => {}
            length @ 1..=32 => {
                write!(f, ".payload(b\"{}\")", self.payload[..length].escape_ascii())?;
            }
            length => write!(f, ".payload(/* {length} bytes */)")?,
        }
        if let Some(length) = self.cut {
            write!(f, ".cut({length})")?;
        }
        Ok(())
    }
}

impl Packet {
    fn show_net(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.net {
            Net::None => Ok(()),
            Net::Arp(sender, target) => write!(f, ".arp(\"{sender}\", \"{target}\")"),
            Net::Other(value) => write!(f, ".ethertype({value:#06x})"),
            Net::V4 { src, dst, options, fragment } => {
                write!(f, ".ipv4(\"{src}\", \"{dst}\")")?;
                if !options.is_empty() {
                    write!(f, ".options(&{options:?})")?;
                }
                match fragment {
                    Some(part) => write!(f, ".fragment({}, {})", part.offset, part.more),
                    None => Ok(()),
                }
            }
            Net::V6 { src, dst, extensions } => {
                write!(f, ".ipv6(\"{src}\", \"{dst}\")")?;
                for extension in extensions {
                    write!(f, ".extension({extension:?})")?;
                }
                Ok(())
            }
        }
    }

    fn show_transport(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.transport {
            Transport::None => Ok(()),
            Transport::Tcp { src, dst, flags, seq, ack } => {
                write!(f, ".tcp({src}, {dst}).flags({flags:#04x}).numbers({seq}, {ack})")
            }
            Transport::Udp(src, dst) => write!(f, ".udp({src}, {dst})"),
            Transport::Icmp(kind, code, word) => write!(f, ".icmp({kind}, {code}, {word:#x})"),
            Transport::Other(number) => write!(f, ".protocol({number})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::packet::{Packet, SYN};

    #[test]
    fn reads_as_its_own_source() {
        let packet =
            Packet::new().eth().vlan(7).ipv4("10.0.0.1", "10.0.0.2").tcp(4, 5).flags(SYN).payload(b"x\0");
        assert_eq!(
            packet.to_string(),
            "Packet::new().eth().vlan(7).ipv4(\"10.0.0.1\", \"10.0.0.2\").tcp(4, 5).flags(0x02)\
             .numbers(1000, 2000).payload(b\"x\\x00\")"
        );
    }
}
