# For linux-initiator.sh --script, without a target: the target itself runs in the guest, whose kernel can encrypt (kTLS); the initiator
# there reaches it through stunnel, which leaves encryption to OpenSSL, so that what the kernel counts is the target's.
#   linux-initiator.sh --add-program tgtd --add-program tgtadm --add ca.pem:/add/keys/ca --add certificate.pem:/add/keys/certificate ...
# --initiator says what its certificate does. In /add/keys: ca, certificate and key of the portal, initiator.certificate and initiator.key.

# tgtd starts itself again by its own file, so its loader has to find the libraries by itself.
prepare_root() {
    ln -s lib /add/lib64
    mkdir -p /add/etc /add/tmp
    printf '%s\n' root:x:0:0::/:/bin/sh nobody:x:65534:65534::/:/bin/false > /add/etc/passwd
    for folder in proc sys dev tmp run; do mkdir -p /add/$folder; mount -o bind /$folder /add/$folder; done
    chmod 644 /add/keys/*; chmod 600 /add/keys/key
}
adm() { chroot /add /bin/tgtadm -C 0 --lld iscsi "$@"; }
answers() { adm --op show --mode system > /dev/null 2>&1; }

# reach NUMBER PORT VERSION TEST...: logs in through stunnel by this version of TLS, works there, logs out
reach() {
    T=/conf/ktls$1; mkdir -p $T
    echo 1 > $T/lun; echo 1 > $T/tls; echo "$3" > $T/tls.version
    cp /add/keys/ca $T/tls.ca; cp /add/keys/initiator.certificate $T/tls.cert; cp /add/keys/initiator.key $T/tls.key
    PORTAL=$(start_tls "$1" $GUEST:$2)
    shift 3
    write_iscsid_conf
    do_login; find_disk
    [ "$(tls_stat TlsCurrTxSw)" = 1 ]
    for name in "$@"; do t_$name; done
    do_logout; forget
    [ "$(tls_stat TlsDecryptError)" = 0 ]
}

modprobe tls
prepare_root
dd if=/dev/zero of=/tmp/img bs=1M count=64 2> /dev/null
chroot /add /bin/tgtd -f -C 0 --state none --iscsi portal=$GUEST:3260 > /tmp/tgtd.log 2>&1 &
trap 'tail -n 30 /tmp/tgtd.log' EXIT
wait_for 20 answers
IQN=iqn.2026-11.org.example:ktls
adm --op new --mode target --tid 1 -T $IQN
adm --op new --mode logicalunit --tid 1 --lun 1 -b /tmp/img
adm --op bind --mode target --tid 1 -I ALL
tls="tls=required,certificate=/keys/certificate,key=/keys/key,client-ca=/keys/ca"
adm --op new --mode portal --param portal=$GUEST:3261,$tls
adm --op new --mode portal --param portal=$GUEST:3262,$tls,policy=2026-11-compatible
before=$(tls_stat TlsTxSw)
reach 71 3261 TLSv1.3 rw ext4
reach 72 3262 TLSv1.2 rw
# By then the kernel encrypts: who shows no certificate has to be told so in a record that is an alert.
echo | openssl s_client -connect $GUEST:3261 -CAfile /add/keys/ca > /tmp/client 2>&1 || :
grep -q 'alert number 116' /tmp/client || { cat /tmp/client; fail "no alert"; }
echo "INFO: connections of tgtd for which the kernel has encrypted: $(($(tls_stat TlsTxSw)-before))"
[ $(($(tls_stat TlsTxSw)-before)) = 3 ]
