#compdef minimega
# zsh completion for minimega. Load it with
#   source <(minimega completion zsh)
# or put it as _minimega into a directory of $fpath.

_minimega() {
    local -a opts found
    local -i i
    local prev=""
    for ((i = 2; i < CURRENT; i++)); do
        case ${${(Q)words[i]}/#--/-} in
        -e)
            found=("${(@f)$("${(@Q)words[1]}" $opts complete-line "${(@Q)words[i+1,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
            [[ -n ${found[1]} ]] && compadd -- $found
            return
            ;;
        -base | -namespace)
            opts+=("${(Q)words[i]}" "${(Q)words[i+1]}")
            i+=1
            ;;
        -base=* | -namespace=*) opts+=("${(Q)words[i]}") ;;
        @VALUES@) i+=1 ;;
        -*) ;;
        completion)
            compadd -- bash zsh fish
            return
            ;;
        *) return ;;
        esac
    done
    ((CURRENT > 2)) && prev=${${(Q)words[CURRENT-1]}/#--/-}
    case $prev in
    -base | -filepath | -cgroup) _files -/ ;;
    -logfile) _files ;;
    -level) compadd -- debug info warn error fatal ;;
    @VALUES@) ;;
    *) compadd -- @FLAGS@ completion ;;
    esac
}

if [[ ${funcstack[1]} == _minimega ]]; then
    _minimega "$@"
else
    compdef _minimega minimega
fi
