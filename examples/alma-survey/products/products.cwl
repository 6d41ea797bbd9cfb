cwlVersion: v1.2
class: CommandLineTool
label: Products
doc: Find the product directories of an archive. Gives one element for each.

requirements:
  InitialWorkDirRequirement:
    listing:
      - entryname: list_products.py
        entry: {$include: list_products.py}
hints:
  # The paths that this tool gives hold for the archive where it stands; an equal copy elsewhere has others.
  WorkReuse:
    enableReuse: false

baseCommand: [python3, list_products.py]
inputs:
  archive:
    type: Directory
    label: Archive
    doc: The directory under which the product directories are looked for, at any depth.
    inputBinding: {position: 1}
outputs:
  # The script writes cwl.output.json.
  product:
    type: string[]
    label: Product
    doc: Absolute path of a product directory.
