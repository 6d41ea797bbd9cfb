cwlVersion: v1.2
class: CommandLineTool
label: TAP query
doc: Put a query in ADQL to a TAP service of the Virtual Observatory.

requirements:
  InitialWorkDirRequirement:
    listing:
      - entryname: tap_query.py
        entry: {$include: tap_query.py}
  NetworkAccess: {networkAccess: true}
hints:
  SoftwareRequirement:
    packages:
      pyvo: {specs: ["https://pyvo.readthedocs.io"]}
  # What a service answers today it may not answer tomorrow.
  WorkReuse:
    enableReuse: false

baseCommand: [python3, tap_query.py]
# Where the service cannot be reached, the row is tried again.
temporaryFailCodes: [75]
inputs:
  service:
    type: string
    label: Service
    doc: Base URL of the service.
    inputBinding: {prefix: --service}
  query:
    type: string
    label: Query
    doc: In ADQL.
    inputBinding: {prefix: --query}
  maxrec:
    type: int
    label: Most rows
    doc: At most so many rows; a service may have a lower limit of its own.
    default: 100000
    inputBinding: {prefix: --maxrec}
outputs:
  # The script writes cwl.output.json.
  rows:
    type: int
    label: Rows
    doc: How many rows the service gave.
  overflow:
    type: boolean
    label: Overflow
    doc: Whether the service had more rows than it gave.
  table:
    type: File
    label: Table
    doc: The rows, as VOTable.
