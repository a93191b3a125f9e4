/// What an administrator decides about a logical unit, and what its store says of itself: everything a device server needs
/// to know that no initiator can change.
public struct LogicalUnitSettings: Hashable, Sendable {
    public enum DeviceType: UInt8, Sendable { case disk = 0x00, controller = 0x0c }

    public var deviceType: DeviceType
    /// Bytes in a logical block: 512 or 4096; meaningless for a controller.
    public var blockLength: Int
    /// Logical blocks; 0 while there is no medium.
    public var blockCount: UInt64

    /// T10 VENDOR IDENTIFICATION, PRODUCT IDENTIFICATION, PRODUCT REVISION LEVEL: ASCII, at most 8, 16 and 4 characters.
    public var vendor: String
    public var product: String
    public var revision: String
    /// Text of the T10 vendor designator (VPD 83h), the vendor at its start included, and the serial number (VPD 80h): ASCII.
    /// Padded to 36 characters; up to 252 are shown.
    public var scsiID: String
    public var serialNumber: String
    /// The 16-byte NAA designator (type 6h: locally assigned registered extended, first nibble 6; or 3h, locally assigned, 8 bytes) of VPD 83h.
    public var naa: [UInt8]

    public var isOnline: Bool
    /// A removable medium may be absent (`hasMedium` false), prevented from removal and ejected.
    public var isRemovable: Bool
    public var hasMedium: Bool
    /// Write protected by the administrator: initiators cannot lift it.
    public var isReadOnly: Bool
    /// UNMAP, WRITE SAME with UNMAP and GET LBA STATUS are offered (SBC-3 §4.7).
    public var isThinProvisioned: Bool
    /// Somebody keeps persistent reservations over a loss of power, if an application client wants that (PTPL_C, SPC-4 §6.15.4).
    public var keepsReservations: Bool

    /// MEDIUM ROTATION RATE (VPD B1h): 0 not reported, 1 non-rotating, else revolutions a minute.
    public var rotationRate: UInt16
    /// LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT and LOWEST ALIGNED LOGICAL BLOCK ADDRESS (READ CAPACITY(16)).
    public var physicalBlockExponent: UInt8
    public var lowestAlignedBlock: UInt16
    /// OPTIMAL TRANSFER LENGTH GRANULARITY and OPTIMAL TRANSFER LENGTH (VPD B0h), in blocks; 0 not reported.
    public var optimalTransferGranularity: UInt16
    public var optimalTransferLength: UInt32
    /// Sense data in descriptor format unless an initiator says otherwise (control mode page D_SENSE).
    public var descriptorSense: Bool
    /// Mode pages as the administrator set them, in order: they replace the defaults of the page with the same length.
    public var modePages: [ModePageOverride]

    /// tgt's `mode_page=page:subpage:length:byte:…`.
    public struct ModePageOverride: Hashable, Sendable {
        public var page: UInt8
        public var subpage: UInt8
        /// The bytes behind the page header.
        public var data: [UInt8]
        public init(page: UInt8, subpage: UInt8, data: [UInt8]) {
            self.page = page
            self.subpage = subpage
            self.data = data
        }
    }

    /// A disk of `blockCount` blocks with the defaults of tgt.
    public init(disk blockCount: UInt64, blockLength: Int, scsiID: String, serialNumber: String, naa: [UInt8]) {
        deviceType = .disk
        self.blockLength = blockLength
        self.blockCount = blockCount
        vendor = "IET"
        product = "VIRTUAL-DISK"
        revision = "0001"
        self.scsiID = scsiID
        self.serialNumber = serialNumber
        self.naa = naa
        isOnline = true
        isRemovable = false
        hasMedium = true
        isReadOnly = false
        isThinProvisioned = false
        keepsReservations = false
        rotationRate = 0
        physicalBlockExponent = 0
        lowestAlignedBlock = 0
        optimalTransferGranularity = 0
        optimalTransferLength = 0
        descriptorSense = false
        modePages = []
    }

    /// The controller that every target has at LUN 0.
    public init(controller scsiID: String, serialNumber: String, naa: [UInt8]) {
        self.init(disk: 0, blockLength: 512, scsiID: scsiID, serialNumber: serialNumber, naa: naa)
        deviceType = .controller
        product = "Controller"
        hasMedium = false
    }
}
