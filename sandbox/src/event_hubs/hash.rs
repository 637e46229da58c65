//! Which partition a partition key belongs to: the service's own hash, so that clients which compute it agree.

/// Returns the partition of a key among `partitions` (at least 1).
///
/// Jenkins lookup3 with two result words and both seeds 0, the words combined by XOR, the low 16 bits taken as a signed
/// number: what the service and the client libraries with a partition mapper of their own compute
/// (<https://github.com/Azure/azure-sdk-for-js/blob/main/sdk/eventhub/event-hubs/src/impl/partitionKeyToIdMapper.ts>).
pub(super) fn partition_of(key: &str, partitions: usize) -> usize {
    let (first, second) = lookup3(key.as_bytes());
    let [.., high, low] = (first ^ second).to_be_bytes();
    let hash = i32::from(i16::from_be_bytes([high, low]));
    let partitions = i32::try_from(partitions).unwrap_or(i32::MAX).max(1);
    usize::try_from((hash % partitions).unsigned_abs()).unwrap_or_default()
}

/// Bob Jenkins' `hashlittle2` (<https://burtleburtle.net/bob/c/lookup3.c>).
fn lookup3(bytes: &[u8]) -> (u32, u32) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let seed = 0xdead_beef_u32.wrapping_add(length);
    let (mut a, mut b, mut c) = (seed, seed, seed);
    let mut rest = bytes;
    while let Some((block, tail)) = rest.split_at_checked(12)
        && !tail.is_empty()
    {
        a = a.wrapping_add(word(block, 0));
        b = b.wrapping_add(word(block, 4));
        c = c.wrapping_add(word(block, 8));
        (a, b, c) = mix(a, b, c);
        rest = tail;
    }
    if rest.is_empty() {
        return (c, b);
    }
    a = a.wrapping_add(word(rest, 0));
    b = b.wrapping_add(word(rest, 4));
    c = c.wrapping_add(word(rest, 8));
    finish(a, b, c)
}

/// Reads four bytes, least first; what lies past the end counts as zero.
fn word(bytes: &[u8], at: usize) -> u32 {
    let mut taken = [0; 4];
    for (place, byte) in taken.iter_mut().zip(bytes.iter().skip(at)) {
        *place = *byte;
    }
    u32::from_le_bytes(taken)
}

fn mix(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32, u32) {
    a = a.wrapping_sub(c) ^ c.rotate_left(4);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(6);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(8);
    b = b.wrapping_add(a);
    a = a.wrapping_sub(c) ^ c.rotate_left(16);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(19);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(4);
    b = b.wrapping_add(a);
    (a, b, c)
}

fn finish(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32) {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    c = (c ^ b).wrapping_sub(b.rotate_left(24));
    (c, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_where_the_node_client_says() {
        for (key, of_4, of_32) in [("alpha", 1, 9), ("beta", 3, 19), ("tenant-1/user-7", 0, 24), ("a", 0, 28)] {
            assert_eq!((partition_of(key, 4), partition_of(key, 32)), (of_4, of_32), "{key}");
        }
    }

    #[test]
    fn every_length_of_key_has_a_partition() {
        for length in 0..40 {
            assert!(partition_of(&"k".repeat(length), 3) < 3);
        }
    }
}
