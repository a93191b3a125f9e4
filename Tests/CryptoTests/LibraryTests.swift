import Crypto
import Testing

private func bytes(_ hexadecimal: String) -> [UInt8] {
    let digits = Array(hexadecimal.utf8).map { UInt8(String(UnicodeScalar($0)), radix: 16)! }
    return stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
}

@Suite struct DigestTests {
    /// RFC 1321 §A.5; FIPS 180-4 and FIPS 202 by NIST's examples (“abc”, the empty text, 448 bits).
    static let vectors: [(digest: Digest, text: String, value: String)] = [
        (.md5, "", "d41d8cd98f00b204e9800998ecf8427e"),
        (.md5, "abc", "900150983cd24fb0d6963f7d28e17f72"),
        (.md5, "12345678901234567890123456789012345678901234567890123456789012345678901234567890", "57edf4a22be3c955ac49da2e2107b67a"),
        (.sha1, "", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
        (.sha1, "abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (.sha1, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "84983e441c3bd26ebaae4aa1f95129e5e54670f1"),
        (.sha256, "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (.sha256, "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (.sha256, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"),
        (.sha3_256, "", "a7ffc6f8bf1ed76651c14756a061d662f580ff4de43b49fa82d80a4b80f8434a"),
        (.sha3_256, "abc", "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"),
        (.sha3_256, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "41c0dba2a9d6240849100376a8235e2c82e1b9998a999e21db32dd97496d3376"),
    ]

    @Test("The published digests come out, whole and in parts", arguments: vectors)
    func published(digest: Digest, text: String, value: String) {
        let text = Array(text.utf8)
        #expect(digest.isAvailable)
        #expect(digest.hash(text) == bytes(value))
        #expect(digest.length == bytes(value).count)
        for split in 0...text.count {
            var state = DigestState(digest)
            state.update(text.span.extracting(0..<split))
            state.update(Secret(Array(text[split...])))
            #expect(state.finish() == bytes(value))
        }
    }

    /// RFC 4231 §4.2, §4.3, §4.7.
    @Test("The published HMACs come out", arguments: [
        (String(repeating: "0b", count: 20), Array("Hi There".utf8), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        ("4a656665", Array("what do ya want for nothing?".utf8), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (
            String(repeating: "aa", count: 131), Array("Test Using Larger Than Block-Size Key - Hash Key First".utf8),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        ),
    ])
    func hmac(key: String, text: [UInt8], value: String) { #expect(HMAC.sha256(text, key: Secret(bytes(key))) == bytes(value)) }
}

@Suite struct SealTests {
    static let key = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"
    static let plain = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"

    /// McGrew and Viega, “The Galois/Counter Mode of Operation”, appendix B: test cases 13 and 16.
    @Test("The published ciphertexts come out", arguments: [
        (String(repeating: "00", count: 32), String(repeating: "00", count: 12), "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
        (
            key, "cafebabefacedbaddecaf888", plain, "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
                + "76fc6ece0f4e1768cddf8853bb2d551b"
        ),
    ])
    func published(key: String, nonce: String, plain: String, context: String, value: String) throws {
        let sealed = Seal.seal(Secret(bytes(plain)), key: Secret(bytes(key)), context: bytes(context), nonce: bytes(nonce))
        #expect(sealed == bytes(nonce + value))
        #expect(try Seal.open(sealed, key: Secret(bytes(key)), context: bytes(context)) == Secret(bytes(plain)))
    }

    @Test("What was changed in any byte, cut, or sealed for another key or context does not open")
    func refuses() {
        let key = Secret.random(count: Seal.keyLength)
        let sealed = Seal.seal(Secret(Array("correct horse".utf8)), key: key, context: [1, 2])
        for index in sealed.indices {
            var changed = sealed
            changed[index] ^= 0x10
            #expect(throws: SealError.self) { try Seal.open(changed, key: key, context: [1, 2]) }
        }
        for length in sealed.indices { #expect(throws: SealError.self) { try Seal.open(Array(sealed[..<length]), key: key, context: [1, 2]) } }
        #expect(throws: SealError.self) { try Seal.open(sealed, key: key, context: [1]) }
        #expect(throws: SealError.self) { try Seal.open(sealed, key: key, context: []) }
        #expect(throws: SealError.self) { try Seal.open(sealed, key: .random(count: Seal.keyLength), context: [1, 2]) }
        #expect(Seal.seal(Secret([7]), key: key, context: []) != Seal.seal(Secret([7]), key: key, context: []), "each has a nonce of its own")
    }
}

@Suite struct SecretTests {
    @Test("A secret is the same as another with the same bytes, and gives them back")
    func equality() {
        for count in [0, 1, 12, 255] {
            let bytes = Random.bytes(count: count)
            #expect(Secret(bytes) == Secret(bytes))
            #expect(Secret(bytes).withBytes { $0.count } == count)
            #expect(Secret(bytes).withBytes { span in (0..<span.count).map { span[$0] } } == bytes)
            #expect(Secret(bytes) != Secret(bytes + [0]))
            #expect(isSameInConstantTime(bytes, bytes))
            #expect(!isSameInConstantTime(bytes, bytes + [0]))
            for index in bytes.indices {
                var other = bytes
                other[index] ^= 1
                #expect(Secret(other) != Secret(bytes))
                #expect(!isSameInConstantTime(other, bytes))
            }
        }
    }

    @Test("However it is printed, its bytes do not show")
    func printing() {
        struct Holder { let secret: Secret }
        let secret = Secret(Array("correct horse".utf8))
        var dumped = ""
        dump(Holder(secret: secret), to: &dumped)
        for text in ["\(secret)", String(reflecting: secret), "\(Holder(secret: secret))", "\(Optional(secret) as Any)", dumped] {
            #expect(!text.contains("horse"))
            #expect(!text.contains("0x"), "not even where it lies")
        }
    }

    @Test("Random bytes are not the same twice, and not all of one value")
    func random() {
        #expect(Random.bytes(count: 32) != Random.bytes(count: 32))
        #expect(Set(Random.bytes(count: 4096)).count > 200)
        #expect(Secret.random(count: 32) != Secret.random(count: 32))
        #expect(Random.bytes(count: 0) == [])
    }
}

@Suite struct Ed25519Tests {
    /// RFC 8032 §7.1, tests 1 to 3.
    static let examples = [
        ("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
         "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"),
        ("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb", "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
         "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"),
        ("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7", "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
         "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"),
    ]

    @Test("The examples of RFC 8032 come out, and nothing else is a signature", arguments: examples)
    func vectors(seed: String, publicKey: String, message: String, signature: String) {
        let seed = Secret(bytes(seed)), key = bytes(publicKey), message = bytes(message), signature = bytes(signature)
        #expect(Ed25519.publicKey(seed: seed) == key)
        #expect(Ed25519.sign(message, seed: seed) == signature)
        #expect(Ed25519.isSignature(signature, of: message, by: key))
        #expect(!Ed25519.isSignature(signature, of: message + [0], by: key))
        for index in signature.indices {
            var other = signature
            other[index] ^= 1
            #expect(!Ed25519.isSignature(other, of: message, by: key))
        }
        #expect(!Ed25519.isSignature(Array(signature.dropLast()), of: message, by: key))
        #expect(!Ed25519.isSignature(signature, of: message, by: Array(key.dropLast())))
        #expect(!Ed25519.isSignature(signature, of: message, by: Ed25519.publicKey(seed: Secret.random(count: 32))))
    }

    @Test("A derived key is the HMAC of its label")
    func derived() {
        let key = Secret(Array("key".utf8)), label = Array("label".utf8)
        #expect(HMAC.derive(label, from: key) == Secret(HMAC.sha256(label, key: key)))
        #expect(HMAC.sha256(Secret(label), key: key) == HMAC.sha256(label, key: key))
        #expect(Secret(joining: key, Secret(label)) == Secret(Array("keylabel".utf8)) && Secret(joining: Secret([]), Secret([])) == Secret([]))
    }
}

@Suite struct SecretSourceTests {
    @Test("A secret is made of hexadecimal digits, two a byte, and of nothing else")
    func hexadecimal() {
        func made(_ text: String) -> Secret? { Secret(hexadecimal: Array(text.utf8).span) }
        #expect(made("00fFa5") == Secret([0, 255, 165]) && made("") == Secret([]))
        for wrong in ["0", "0g", "g0", " 0", "00 "] { #expect(made(wrong) == nil, "\(wrong)") }
    }

    @Test("A secret that is read is as long as what was read")
    func filled() {
        for count in [0, 1, 4] {
            let secret = Secret.filled(room: 4) { room in
                for index in 0..<count { room[index] = 7 }
                return count
            }
            #expect(secret == Secret([UInt8](repeating: 7, count: count)))
        }
        struct Broken: Error {}
        #expect(throws: Broken.self) { try Secret.filled(room: 4) { _ throws(Broken) in throw Broken() } }
    }
}
