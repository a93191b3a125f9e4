import Bytes
import ISCSI
import SCSI

/// A logical unit as the administrator wants it.
public struct LogicalUnitConfiguration: Hashable, Sendable {
    public let key: LogicalUnitKey
    public let deviceType: LogicalUnitSettings.DeviceType
    /// 512 or 4096.
    public let blockLength: Int

    public internal(set) var store: BackingStore
    /// What the open medium is; nil without one.
    public internal(set) var medium: StoreFacts?

    /// What was chosen; nil: the default of `IdentitySource`.
    public internal(set) var chosenSCSIID: String?
    public internal(set) var chosenSerialNumber: String?
    public internal(set) var vendor = "IET"
    public internal(set) var product: String
    public internal(set) var revision = "0001"

    public internal(set) var isOnline: Bool
    public internal(set) var isRemovable: Bool
    public internal(set) var isReadOnly = false
    public internal(set) var isThinProvisioned = false
    public internal(set) var rotationRate: UInt16 = 0
    /// nil: what the medium says.
    public internal(set) var chosenPhysicalBlockExponent: UInt8?
    public internal(set) var lowestAlignedBlock: UInt16 = 0
    public internal(set) var optimalTransferGranularity: UInt16 = 0
    public internal(set) var optimalTransferLength: UInt32 = 0
    public internal(set) var descriptorSense = false
    public internal(set) var modePages: [LogicalUnitSettings.ModePageOverride] = []
    /// What initiators want to have after a loss of power, too: no administrator configures it, but it comes, is kept and goes with the logical unit.
    public internal(set) var reservations: PersistentReservations?

    /// The block sizes that exist here, in bytes.
    public static let blockLengths = [512, 4096]

    /// A disk. Without a path it is removable and offline, as in tgt.
    init(disk key: LogicalUnitKey, blockLength: Int, store: BackingStore, medium: StoreFacts?) {
        self.key = key
        deviceType = .disk
        product = "VIRTUAL-DISK"
        self.blockLength = blockLength
        self.store = store
        self.medium = medium
        isOnline = medium != nil
        isRemovable = medium == nil
    }

    /// The controller that every target has at LUN 0.
    init(controllerOf target: TargetID) {
        key = LogicalUnitKey(target: target, lun: 0)
        deviceType = .controller
        product = "Controller"
        blockLength = 512
        store = BackingStore(kind: .null, path: nil)
        isOnline = true
        isRemovable = false
    }

    public var hasMedium: Bool { medium != nil }
    /// Whether initiators find it ready: a disk is online without a medium only if its store could not be opened at a start.
    public var isServed: Bool { isOnline && (deviceType == .controller || hasMedium) }
    /// Whole blocks on the medium.
    public var blockCount: UInt64 { (medium?.byteCount ?? 0) / UInt64(blockLength) }

    /// By what initiators recognise it.
    public func identity(_ source: IdentitySource, targetName: ISCSIName) -> DeviceIdentity {
        var identity = source.identity(target: key.target, name: targetName, lun: key.lun)
        if let chosenSCSIID {
            identity.scsiID = chosenSCSIID
            identity.naa = IdentitySource.naa(scsiID: chosenSCSIID)
        }
        if let chosenSerialNumber { identity.serialNumber = chosenSerialNumber }
        return identity
    }

    /// What the device server needs to know.
    public func settings(_ source: IdentitySource, targetName: ISCSIName) -> LogicalUnitSettings {
        let identity = identity(source, targetName: targetName)
        var settings: LogicalUnitSettings
        switch deviceType {
        case .controller: settings = LogicalUnitSettings(controller: identity.scsiID, serialNumber: identity.serialNumber, naa: identity.naa)
        case .disk:
            settings = LogicalUnitSettings(
                disk: blockCount, blockLength: blockLength, scsiID: identity.scsiID, serialNumber: identity.serialNumber, naa: identity.naa)
            settings.hasMedium = hasMedium
        }
        settings.vendor = vendor
        settings.product = product
        settings.revision = revision
        settings.isOnline = isServed
        settings.isRemovable = isRemovable
        settings.isReadOnly = isReadOnly
        settings.isThinProvisioned = isThinProvisioned
        settings.rotationRate = rotationRate
        settings.physicalBlockExponent = physicalBlockExponent
        settings.lowestAlignedBlock = lowestAlignedBlock
        settings.optimalTransferGranularity = optimalTransferGranularity
        settings.optimalTransferLength = optimalTransferLength
        settings.descriptorSense = descriptorSense
        settings.modePages = modePages
        return settings
    }

    /// Chosen, or from the medium: how many logical blocks, as a power of two, it writes at once.
    private var physicalBlockExponent: UInt8 {
        if let chosenPhysicalBlockExponent { return chosenPhysicalBlockExponent }
        guard let length = medium?.physicalBlockLength, length > blockLength, length.isMultiple(of: blockLength) else { return 0 }
        let ratio = length / blockLength
        return ratio & (ratio - 1) == 0 ? UInt8(min(15, ratio.trailingZeroBitCount)) : 0
    }
}
