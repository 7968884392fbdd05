# contract: echo
# language: socat
# packages: socat
# program: socat
# start: sh {file} {host} {port}
#
# PIPE is a pipe that socat writes to and reads from. Its blocks are no larger than PIPE_BUF (4096), so that a
# write that has room does not wait for the reader, which is socat itself. -t: after FIN it waits half a second
# for somebody to take what is owed; here a day.
exec socat -b 4096 -t 86400 "TCP-LISTEN:$2,bind=$1,reuseaddr,fork,backlog=1024" PIPE
