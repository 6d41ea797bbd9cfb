cwlVersion: v1.2
class: CommandLineTool
label: Download
doc: Fetch a file from the web.

requirements:
  InitialWorkDirRequirement:
    listing:
      - entryname: download.py
        entry: {$include: download.py}
  NetworkAccess: {networkAccess: true}
hints:
  # What an address holds today it may not hold tomorrow.
  WorkReuse:
    enableReuse: false

baseCommand: [python3, download.py]
# Where the server cannot be reached, the row is tried again.
temporaryFailCodes: [75]
inputs:
  url:
    type: string
    label: URL
    doc: Address of the file, with http or https.
    inputBinding: {position: 1}
  sha256:
    type: string?
    label: SHA-256
    doc: What the file has to be, as 64 hexadecimal digits; whatever comes is taken where nothing is given.
    inputBinding: {position: 2}
outputs:
  # The script writes cwl.output.json.
  file:
    type: File
    label: File
    doc: The file under the name that it has in its address.
  size:
    type: long
    label: Size
    doc: Size in bytes.
  media_type:
    type: string?
    label: Media type
    doc: What the server says that it is.
