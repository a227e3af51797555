# bash completion for minimega. Load it with
#   source <(minimega completion bash)
# or put it into /usr/share/bash-completion/completions/minimega.

_minimega() {
    local line=${COMP_LINE:0:COMP_POINT} word plain i=0
    local -a words=()

    # Bash cut the line at = and : too; put what belongs together together.
    for word in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        [[ $word && ${line%%"$word"*} == "$line" ]] && word=$line # only up to the cursor
        if [[ $line == [[:space:]]* || $i -eq 0 ]]; then
            words[i]=$word
            i=$((i + 1))
        else
            words[i - 1]+=$word
        fi
        line=${line#*([[:space:]])}
        line=${line#"${line%%[![:space:]]*}"}
        line=${line#"$word"}
    done
    local last=$((i - 1)) cur=${words[i - 1]} split=""
    [[ $cur == *[=:]* ]] && split=${cur%"${cur##*[=:]}"}

    # Quotes and backslashes are the shell's, not the program's.
    local -a args=()
    for word in "${words[@]}"; do
        plain=${word//[\"\'\\]/}
        args+=("${plain/#\~/$HOME}")
    done
    cur=${args[last]}

    COMPREPLY=()
    local -a opts=() found=()
    local prev="" candidate
    for ((i = 1; i < last; i++)); do
        case ${args[i]/#--/-} in
        -e)
            mapfile -t found < <("${args[0]}" "${opts[@]}" complete-line "${args[@]:i+1:last-i}" 2>/dev/null)
            for candidate in "${found[@]}"; do
                candidate=${candidate#"$split"}
                # Within quotes the shell adds what is missing, else we must.
                [[ ${words[last]} == [\"\']* ]] || printf -v candidate %q "$candidate"
                COMPREPLY+=("$candidate")
            done
            return
            ;;
        -base | -namespace)
            opts+=("${args[i]}" "${args[i + 1]}")
            i=$((i + 1))
            ;;
        -base=* | -namespace=*) opts+=("${args[i]}") ;;
        @VALUES@) i=$((i + 1)) ;;
        -*) ;;
        completion)
            mapfile -t COMPREPLY < <(compgen -W "bash zsh fish" -- "$cur")
            return
            ;;
        *) return ;;
        esac
    done
    ((last > 1)) && prev=${args[last - 1]/#--/-}
    case $prev in
    -base | -filepath | -cgroup) mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
    -logfile) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    -level) mapfile -t COMPREPLY < <(compgen -W "debug info warn error fatal" -- "$cur") ;;
    @VALUES@) ;;
    *) mapfile -t COMPREPLY < <(compgen -W "@FLAGS@ completion" -- "$cur") ;;
    esac
}
complete -o nosort -F _minimega minimega
