# Statistics of the text on stdin as one JSON object; relaymesh/demo/words.py says what they mean.
$ErrorActionPreference = 'Stop'

$memory = New-Object System.IO.MemoryStream
[Console]::OpenStandardInput().CopyTo($memory)
# One character per byte, so that every tool counts the same.
$latin = [System.Text.Encoding]::GetEncoding(28591)
$text = $latin.GetString($memory.ToArray())

$lines = [regex]::Matches($text, '\n').Count
if ($text.Length -gt 0 -and $text[$text.Length - 1] -ne [char]10) { $lines++ }
$words = [regex]::Matches($text, '[^ \t\n\r\f\v]+').Count

$count = New-Object 'System.Collections.Generic.SortedDictionary[string,int]' ([System.StringComparer]::Ordinal)
foreach ($match in [regex]::Matches($text, '[A-Za-z\x80-\xff]+')) {
    $word = [regex]::Replace($match.Value, '[A-Z]', { param($letter) $letter.Value.ToLowerInvariant() })
    if ($count.ContainsKey($word)) { $count[$word]++ } else { $count[$word] = 1 }
}

$often = ''
$times = 0
foreach ($entry in $count.GetEnumerator()) {
    if ($entry.Key.Length -ge 5 -and $entry.Key.Length -le 40 -and $entry.Value -gt $times) {
        $often = $entry.Key
        $times = $entry.Value
    }
}
$attempt = 1
if ($env:RELAYMESH_ATTEMPT) { $attempt = [int]$env:RELAYMESH_ATTEMPT }

$json = '{"tool":"powershell","lines":' + $lines + ',"words":' + $words + ',"distinct":' + $count.Count +
    ',"often":"' + $often + '","times":' + $times + ',"attempt":' + $attempt + "}`n"
$bytes = $latin.GetBytes($json)
[Console]::OpenStandardOutput().Write($bytes, 0, $bytes.Length)
