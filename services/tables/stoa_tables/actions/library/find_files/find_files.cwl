cwlVersion: v1.2
class: CommandLineTool
label: Find files
doc: Find files below a directory by their names. Gives one element for each.

requirements:
  InitialWorkDirRequirement:
    listing:
      - entryname: find_files.py
        entry: {$include: find_files.py}
hints:
  # The paths hold for the directory where it stands; an equal copy elsewhere has others.
  WorkReuse:
    enableReuse: false

baseCommand: [python3, find_files.py]
inputs:
  directory:
    type: Directory
    label: Directory
    doc: Where to look.
    inputBinding: {position: 1}
  pattern:
    type: string
    label: Pattern
    doc: What the names look like, as in a shell; ** stands for any number of directories.
    default: "**/*.fits"
    inputBinding: {position: 2}
outputs:
  # The script writes cwl.output.json.
  path:
    type: string[]
    label: Path
    doc: Absolute path of the file. A File column of a linked table takes it as it is.
  name:
    type: string[]
    label: Name
    doc: Name of the file without its directories.
  size:
    type: long[]
    label: Size
    doc: Size of the file in bytes.
