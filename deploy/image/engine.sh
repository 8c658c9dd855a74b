# shellcheck shell=bash
# To be sourced: find_engine sets ENGINE to docker or podman, whichever answers,
# or says what is missing and ends the script.

find_engine() {
	local candidate installed=""
	for candidate in docker podman; do
		command -v "$candidate" >/dev/null || continue
		installed+="${installed:+ and }$candidate"
		if timeout 20 "$candidate" info >/dev/null 2>&1; then
			export ENGINE=$candidate
			return
		fi
	done
	if [[ -z $installed ]]; then
		echo "Neither docker nor podman is installed. Install one of them, for example: apt-get install docker.io" >&2
	else
		echo "No container engine answers ($installed: '${installed##* } info' fails). Start it, for example: systemctl start docker; or let your user reach it: usermod -aG docker \$USER" >&2
	fi
	exit 1
}
