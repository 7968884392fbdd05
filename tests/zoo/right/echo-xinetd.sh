# contract: echo
# language: xinetd
# packages: xinetd
# program: xinetd
# start: sh {file} {host} {port}
#
# The echo service of RFC 862, as the Internet super-server has it built in: a child for each client.
config=$(mktemp)
cat >"$config" <<END
service echo
{
    id          = echo-stream
    type        = INTERNAL UNLISTED
    socket_type = stream
    protocol    = tcp
    wait        = no
    bind        = $1
    port        = $2
    instances   = UNLIMITED
    per_source  = UNLIMITED
    cps         = 0 0
}
END
{ sleep 5; rm -f "$config"; } & # xinetd closes all descriptors that it inherits, so it must be a file
exec xinetd -dontfork -stayalive -syslog daemon -f "$config"
