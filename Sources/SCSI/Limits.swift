/// The bounds of a device server, each with its reason. What an initiator can learn of them is in VPD page B0h.
public enum Limits {
    /// MAXIMUM TRANSFER LENGTH, in bytes: what one command may hold of the process's buffer budget (SBC-3 §6.6.4).
    public static let maximumTransferBytes = 16 << 20
    /// MAXIMUM COMPARE AND WRITE LENGTH, in blocks: its field has one byte; clusters compare one block, seldom more.
    public static let compareAndWriteBlocks = 128
    /// MAXIMUM WRITE SAME LENGTH, in bytes: how long one command may keep a storage thread writing.
    public static let writeSameBytes = 16 << 20
    /// MAXIMUM UNMAP LBA COUNT: the greatest that initiators take for a sane number.
    public static let unmapBlocks: UInt64 = 1 << 20
    /// MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT: extents that one command may hand to the store.
    public static let unmapDescriptors = 256
    /// OPTIMAL UNMAP GRANULARITY, in bytes: file systems free space in units of 4 KiB.
    public static let unmapGranularityBytes = 4096
    /// LBA status descriptors in one answer: enough to make progress, small enough for one PDU.
    public static let statusDescriptors = 256
    /// The longest parameter list taken, in bytes: that of every command but PERSISTENT RESERVE OUT has a 16-bit length field.
    public static let parameterListBytes = 65535
    /// Bytes read at once for VERIFY with BYTCHK 11b, which compares every block with the same one.
    static let repeatedCompareBytes = 64 << 10
    /// Unit attentions kept for one nexus: more than there are different ones, so that none is lost.
    static let attentions = 32
    /// The longest iSCSI name in a TransportID (RFC 7143 §4.2.7.2).
    static let nameBytes = 223
}
