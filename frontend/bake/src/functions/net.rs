//! Addresses of networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Param::{Number as N, Text};
use super::{Call, Function, many, row};
use crate::value::Value;

pub(super) const TABLE: &[Function] = &[
    row("cidrhost", &[Text, N], host),
    row("cidrnetmask", &[Text], netmask),
    row("cidrsubnet", &[Text, N, N], |c| {
        let net = Net::parse(c.text(0))?;
        net.subnet(c.int(1)?, c.int(2)?).map(|net| Value::text(net.shown()))
    }),
    many("cidrsubnets", &[Text], N, subnets),
];

/// A network: an address as a number of 32 or 128 bits, and the length of its prefix.
#[derive(Clone, Copy)]
struct Net {
    address: u128,
    prefix: u32,
    bits: u32,
}

impl Net {
    fn parse(text: &str) -> Result<Net, String> {
        let bad = || format!("invalid CIDR expression: {text:?}");
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let (address, bits) = match address.parse::<IpAddr>().map_err(|_| bad())? {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
            IpAddr::V6(v6) => (u128::from(v6), 128),
        };
        let prefix: u32 = prefix.parse().map_err(|_| bad())?;
        if prefix > bits {
            return Err(bad());
        }
        Ok(Net { address, prefix, bits }.masked())
    }

    fn masked(self) -> Net {
        Net { address: self.address & self.mask(), ..self }
    }

    fn mask(self) -> u128 {
        let ones = if self.bits == 128 { u128::MAX } else { (1 << self.bits) - 1 };
        match self.bits - self.prefix {
            128 => 0,
            host => ones & !((1_u128 << host) - 1),
        }
    }

    fn ip(self, address: u128) -> String {
        match u32::try_from(address) {
            Ok(v4) if self.bits == 32 => Ipv4Addr::from(v4).to_string(),
            _ => Ipv6Addr::from(address).to_string(),
        }
    }

    fn shown(self) -> String {
        format!("{}/{}", self.ip(self.address), self.prefix)
    }

    fn subnet(self, more: i64, number: i64) -> Result<Net, String> {
        let prefix = u32::try_from(more)
            .ok()
            .and_then(|more| self.prefix.checked_add(more))
            .filter(|prefix| *prefix <= self.bits);
        let prefix = prefix.ok_or_else(|| {
            format!("insufficient address space to extend prefix of {} by {more}", self.prefix)
        })?;
        let limit = 1_u128.checked_shl(prefix - self.prefix).unwrap_or(u128::MAX);
        let too_far =
            || format!("prefix extension of {more} does not accommodate a subnet numbered {number}");
        let number = match u128::try_from(number) {
            Ok(number) => number,
            Err(_) => limit.checked_sub(u128::from(number.unsigned_abs())).ok_or_else(too_far)?,
        };
        if number >= limit {
            return Err(too_far());
        }
        let address = self.address | number.checked_shl(self.bits - prefix).unwrap_or(0);
        Ok(Net { address, prefix, bits: self.bits })
    }
}

fn host(call: &Call<'_>) -> Result<Value, String> {
    let (net, number) = (Net::parse(call.text(0))?, call.int(1)?);
    let size = 1_u128.checked_shl(net.bits - net.prefix).unwrap_or(u128::MAX);
    let too_far = || format!("prefix of {} does not accommodate a host numbered {number}", net.prefix);
    let number = match u128::try_from(number) {
        Ok(number) => number,
        Err(_) => size.checked_sub(u128::from(number.unsigned_abs())).ok_or_else(too_far)?,
    };
    if number >= size {
        return Err(too_far());
    }
    Ok(Value::text(net.ip(net.address | number)))
}

fn netmask(call: &Call<'_>) -> Result<Value, String> {
    let net = Net::parse(call.text(0))?;
    if net.bits != 32 {
        return Err("only IPv4 networks have a netmask".to_owned());
    }
    Ok(Value::text(net.ip(net.mask())))
}

/// Networks one behind the other, each longer by its argument.
fn subnets(call: &Call<'_>) -> Result<Value, String> {
    let net = Net::parse(call.text(0))?;
    let (mut found, mut next) = (Vec::new(), net.address);
    let end = net.address + (u128::MAX >> (128 - (net.bits - net.prefix)).min(127));
    for at in 1..call.args.len() {
        let more = call.int(at)?;
        let prefix =
            u32::try_from(more).ok().filter(|more| *more >= 1).and_then(|more| net.prefix.checked_add(more));
        let prefix = prefix
            .filter(|prefix| *prefix <= net.bits)
            .ok_or("must extend prefix by at least one bit, within the address")?;
        let size = 1_u128.checked_shl(net.bits - prefix).unwrap_or(u128::MAX);
        let start = next.div_ceil(size) * size;
        if start > end {
            return Err(format!(
                "not enough remaining address space for a subnet with a prefix of {prefix} bits"
            ));
        }
        found.push(Net { address: start, prefix, bits: net.bits }.shown());
        next = start.saturating_add(size);
    }
    Ok(Value::texts(found))
}
